#!/bin/sh
# Unpack Debian packages into a folder, as the root file system of an image: `root.sh LIST DIR ARCHITECTURE`.
# LIST has a package a line. Nothing of a package is run, so that an image of another architecture needs no emulation.
set -eu
list=$1
root=$2
arch=$3

if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    dpkg --add-architecture "$arch"
    apt-get -qq update
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A package that is the same for all architectures has no other name.
sed '/^#/d' "$list" | while read -r name; do
    if apt-cache show --no-all-versions "$name" | grep -q '^Architecture: all'; then
        echo "$name"
    else
        echo "$name:$arch"
    fi
done >"$work/names"
(cd "$work" && xargs apt-get -qq -o APT::Sandbox::User=root download <names >/dev/null)

# What Debian's base-files makes; /tmp is a volume where the root is read-only.
mkdir -p "$root/usr/lib" "$root/var/lib/dpkg/status.d"
mkdir -p -m 1777 "$root/tmp" "$root/var/tmp"
mkdir -p "$root/etc/ssl/certs" "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/root"
# Scanners look for the packages of an image without a package manager in status.d.
for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$root"
    dpkg-deb --field "$package" >"$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done

# Licences stay; other documents, translations, and the converters of old character sets go.
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/lintian" "$root/usr/share/bug" \
    "$root/usr/share/python3" "$root"/usr/lib/*/gconv "$root/etc/init.d" "$root/lib/systemd" "$root/usr/lib/binfmt.d"
rm -rf "$root/usr/lib/python3.11/pydoc_data" "$root"/usr/lib/python3.11/config-*

if [ -e "$root/usr/bin/python3.11" ]; then
    ln -s python3.11 "$root/usr/bin/python3"
    ln -s python3.11 "$root/usr/bin/python"
fi
# Where OpenSSL looks for authorities; the links are part of Debian's package openssl.
mkdir -p "$root/usr/lib/ssl"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
cat >"$root/etc/passwd" <<USERS
root:x:0:0:root:/root:/sbin/nologin
gleaner:x:10001:10001:Gleaner:/tmp:/sbin/nologin
USERS
printf 'root:x:0:\ngleaner:x:10001:\n' >"$root/etc/group"
# A new volume of an engine takes its owner from the folder of the image.
for folder in mosquitto gleaner gleaner/console gleaner/device gleaner/edge gleaner/models gleaner/models/pets gleaner/store; do
    install -d -o 10001 -g 10001 "$root/var/lib/$folder"
done
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
