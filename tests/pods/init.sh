#!/bin/sh
# The first process of a machine: `init.sh NAME FOLDER`, in its own mount, process, network, host-name and IPC namespaces.
# Everything that runs on the machine ends with it.
set -eu
name=$1
folder=$2
hostname "$name"
mount --make-rshared /

# The machine's own folders; those of the host stay as they are. Those that had to be made there are noted for removal.
for path in /var/lib/kubelet /var/lib/kubeedge /etc/kubeedge /var/lib/gleaner /etc/gleaner /var/log/pods /var/log/containers \
    /run/containerd /var/lib/containerd /etc/cni /run/netns /run/gleaner-pods; do
    [ -d "$path" ] || echo "$path" >>"$folder/../made"
    mkdir -p "$path" "$folder/root$path"
    mount --bind "$folder/root$path" "$path"
done

# kubelet and edged set these for the whole machine: they are shown what they want to see instead.
mkdir -p "$folder/sysctl"
for wanted in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    setting=/proc/sys/${wanted%=*}
    [ -e "$setting" ] || continue
    shown=$folder/sysctl/$(echo "${wanted%=*}" | tr / _)
    echo "${wanted#*=}" >"$shown"
    mount --bind "$shown" "$setting"
done
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
echo 1 >/proc/sys/net/ipv4/ip_forward
touch "$folder/ready"

# `wait` also reaps the orphans of the machine.
while :; do
    sleep 3600 &
    wait $!
done
