#!/bin/sh
# One of the largest images, below $1: with more than 100 000 files, more than 2 GiB, or the Debian root that is mounted at $3.
set -eu
cd "$1"

# begun TAG: a layout with the image of busybox, to which layers are added.
begun() {
    cp -a base-layout "layout-$1"
    umoci tag --image "layout-$1:base" "$1"
    mkdir -p "tree-$1/etc"
    printf 'ID=%s\n' "$1" >"tree-$1/etc/os-release"
}
# added TAG: its tree as one layer.
added() {
    tar --sort=name --format=posix --pax-option=delete=atime,delete=ctime -C "tree-$1" -cf "$1.tar" .
    umoci raw add-layer --image "layout-$1:$1" "$1.tar"
    rm -r "$1.tar" "tree-$1"
}

case $2 in
many)
    begun many
    for n in $(seq 120); do
        mkdir -p "tree-many/data/$n"
        seq $((n * 1000)) $((n * 1000 + 999)) | split -l 1 -a 4 -d - "tree-many/data/$n/file-"
    done
    added many
    ;;
huge)
    begun huge
    openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 2300000000 >tree-huge/noise
    added huge
    ;;
debian)
    umoci init --layout layout-debian
    umoci new --image layout-debian:debian
    tar --sort=name --format=posix --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' --numeric-owner \
        --exclude=./lost+found -C "$3" -cf debian.tar .
    umoci raw add-layer --image layout-debian:debian debian.tar
    rm debian.tar
    ;;
esac
