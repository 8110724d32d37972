#!/bin/sh
# Builds images with umoci and tar as an OCI layout below $1, without a network: each a tag of its own, each with busybox
# in it so that it boots, and a line in /etc/os-release that says which it is.
set -eu
cd "$1"

# base TAG: an image with busybox and users.
base() {
    tag=$1
    cp -a base-layout "layout-$tag"
    umoci tag --image "layout-$tag:base" "$tag"
}
# open: its root file system in $root.
open() {
    opened=$PWD/bundle-$tag
    umoci unpack --image "layout-$tag:$tag" "$opened"
    root=$opened/rootfs
}
# layer: what was changed since is one layer more.
layer() { umoci repack --refresh-bundle --image "layout-$tag:$tag" "$opened"; }
# add FILE: a tar as a layer, as it is.
add() { umoci raw add-layer --image "layout-$tag:$tag" "$1"; }
named() { printf 'ID=%s\n' "$tag" >"$root/etc/os-release"; }
# noise BYTES SEED: bytes that no packing makes shorter, the same each time.
noise() { openssl enc -aes-128-ctr -nosalt -K "$(printf %032x "$2")" -iv 0 </dev/zero 2>/dev/null | head -c "$1"; }

umoci init --layout base-layout
umoci new --image base-layout:base
umoci unpack --image base-layout:base base-bundle
root=base-bundle/rootfs
mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/tmp" "$root/proc" "$root/sys" "$root/dev"
chmod 1777 "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
for name in sh cat ls sha256sum; do ln -s busybox "$root/bin/$name"; done
printf 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:50:Ann:/home/ann:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nann:x:50:\n' >"$root/etc/group"
printf 'ID=base\n' >"$root/etc/os-release"
umoci repack --image base-layout:base base-bundle
umoci config --image base-layout:base --config.cmd /bin/sh

base busybox; open; named; layer

base whiteouts; open; named
mkdir -p "$root/d/sub" "$root/gone/deep"
for n in 1 2 3 4 5; do echo "$n" >"$root/d/$n"; echo "$n" >"$root/gone/deep/$n"; done
echo file >"$root/becomes-directory"; mkdir "$root/becomes-file"; echo in >"$root/becomes-file/in"; ln -s d "$root/becomes-target"
layer
rm "$root/d/2" "$root/d/4"; rm -r "$root/gone" "$root/becomes-file"; rm "$root/becomes-directory" "$root/becomes-target"
mkdir "$root/becomes-directory"; echo in >"$root/becomes-directory/in"; echo file >"$root/becomes-file"; echo file >"$root/becomes-target"
layer
echo again >"$root/d/2"; rm "$root/d/1"; layer

base opaque; open; named
mkdir -p "$root/o/sub"; echo old >"$root/o/old"; echo old >"$root/o/sub/old"; layer
mkdir fresh-opaque; echo new >fresh-opaque/new
umoci insert --opaque --image "layout-$tag:$tag" fresh-opaque /o

base users; open; named
mkdir -p "$root/home/ann" "$root/srv"; echo mine >"$root/home/ann/file"; chown -R 1000:50 "$root/home/ann"; chmod 700 "$root/home/ann"
echo su >"$root/bin/su"; chmod 4755 "$root/bin/su"; echo sg >"$root/bin/sg"; chgrp 50 "$root/bin/sg"; chmod 2755 "$root/bin/sg"
echo far >"$root/srv/far"; chown 200000:3000000 "$root/srv/far"; chmod 0 "$root/srv/far"
layer
umoci config --image "layout-$tag:$tag" --config.user ann --config.workingdir /home/ann --config.env A=b

base attributes; open; named
echo x >"$root/noted"; setfattr -n user.note -v "$(printf 'two\nlines')" "$root/noted"; setfattr -n user.empty "$root/noted"
cp /bin/busybox "$root/bin/ping"; setcap cap_net_raw+ep "$root/bin/ping"
mkdir "$root/trusted"; setfattr -n trusted.overlay.something -v y "$root/trusted"
touch -d '1965-03-04 05:06:07.123456789 UTC' "$root/noted"
touch -d '2200-01-01 00:00:00.5 UTC' "$root/bin/ping"
layer

base links; open; named
echo one >"$root/one"; ln "$root/one" "$root/two"; mkdir "$root/sub"; ln "$root/one" "$root/sub/three"
ln -s nowhere "$root/dangling"; ln -s / "$root/rooted"; ln -s ../../../../etc "$root/sub/up"; ln -s "$(printf '%0200d' 0)" "$root/long-target"
layer
ln "$root/one" "$root/four"; rm "$root/two"; layer
echo changed >"$root/sub/three"; layer

base sparse
mkdir tree-sparse; cd tree-sparse; mkdir etc; printf 'ID=sparse\n' >etc/os-release
truncate -s 64M holes; printf begin | dd of=holes conv=notrunc status=none; printf middle | dd of=holes bs=1M seek=33 conv=notrunc status=none
truncate -s 8M only-holes; noise 3000000 1 >whole; dd if=/dev/zero of=whole bs=64k seek=10 count=20 conv=notrunc status=none
cd ..
tar --sparse --format=posix --pax-option=delete=atime,delete=ctime --sort=name --owner=0 --group=0 --mtime=@1600000000 -C tree-sparse -cf sparse.tar etc holes only-holes whole; add sparse.tar

base names; open; named
cd "$root"
echo x >"$(printf '%0255d' 0)"; mkdir -p "$(printf '%0120d/%0120d/%0120d' 1 2 3)"; echo deep >"$(printf '%0120d/%0120d/%0120d/deep' 1 2 3)"
echo x >"$(printf 'new\nline')"; echo x >"quote\"'quote"; echo x >'back\slash'; echo x >'  blanks  '; echo x >'-rf'
# shellcheck disable=SC2016 # it is a name, and is run nowhere
echo x >'$(id)`id`;&|<>*?[]'
echo x >'gr\303\274\303\237e-äöü-日本'; echo x >...; mkdir many; for n in $(seq 700); do echo "$n" >"many/name-of-a-file-$n"; done
cd - >/dev/null
layer

base devices; open; named
mknod "$root/dev/null" c 1 3; mknod "$root/dev/sda" b 8 0; mkfifo "$root/pipe"; mknod "$root/far" c 4095 1048575; chmod 640 "$root/dev/sda"; chown 0:6 "$root/dev/sda"
layer

base zstd; open; named
noise 2000000 2 >"$root/noise"; seq 200000 >"$root/numbers"; layer
echo more >"$root/more"; layer

base schema2; open; named; echo docker >"$root/docker"; layer

base ten-layers; open; named
for n in 1 2 3 4 5 6 7 8; do mkdir -p "$root/l/$n"; noise 100000 "$n" >"$root/l/$n/noise"; echo "$n" >"$root/l/last"; rm -f "$root/l/$((n - 2))/noise"; layer; done
