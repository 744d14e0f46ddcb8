# Runs a command as a pod would: a root that nothing can be written to, the mounts named, no capability, and what the
# caller's environment says. Needs root and unshare(1); the processes see a file system of their own, and change none.
#
# as_a_pod.sh NEW_ROOT MOUNTS COMMAND...   MOUNTS: lines of `SOURCE TARGET ro|rw`
set -eu
new=$1 mounts=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$new"
for entry in /*; do
    case ${entry#/} in proc | sys | dev | tmp | etc | scratch | volumes) continue ;; esac
    if [ -L "$entry" ]; then
        cp -a "$entry" "$new/"
    elif [ -d "$entry" ]; then
        mkdir "$new$entry"
        mount --rbind "$entry" "$new$entry"
    fi
done
mkdir "$new/proc" "$new/dev" "$new/dev/shm" "$new/tmp"
cp -a /etc "$new/etc"
mount --rbind /proc "$new/proc"
for device in null zero full random urandom; do
    touch "$new/dev/$device"
    mount --bind "/dev/$device" "$new/dev/$device"
done
# Container runtimes give every container so much of it, whatever its root is.
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$new/dev/shm"
while read -r source target mode; do
    if [ -d "$source" ]; then
        mkdir -p "$new$target"
    else
        mkdir -p "$(dirname "$new$target")"
        touch "$new$target"
    fi
    mount --bind "$source" "$new$target"
done <"$mounts"
awk '{ print $5 }' /proc/self/mountinfo | grep "^$new" | sort -u | while read -r point; do
    inside=${point#"$new"}
    case $inside in /proc* | /dev/shm | /dev/null | /dev/zero | /dev/full | /dev/*random) continue ;; esac
    if ! grep -q " ${inside:-/} rw\$" "$mounts"; then
        mount -o remount,bind,ro "$point"
    fi
done
exec chroot "$new" setpriv --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
