"""How sure a number is: intervals, paired comparisons, ratings from games."""
