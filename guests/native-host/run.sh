#!/bin/sh
# Run a static program under the guest kernel on the real CPU: ./run.sh [-m MiB] [-f host:guest]... program [argument]...
# Needs gcc, make and ptrace. Writes only to $OUT (default: a directory under the system's temporary one).
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-${TMPDIR:-/tmp}/pvm-native-host}
bases='-DKERNEL_BASE=0x280000000000 -DDIRECT_BASE=0x200000000000'
mkdir -p "$out"
make -s -j2 -C "$here/../kernel" OUT="$out/kernel.elf" OBJ="$out/kernel" DEFINES="$bases"
[ "$out/native-host" -nt "$here/native-host.c" ] ||
	gcc -O2 -Wall -Wextra -iquote "$here/../kernel" $bases -o "$out/native-host" "$here/native-host.c"

memory=64 files=
while :; do
	case $1 in
	-m) memory=$2; shift 2 ;;
	-f) files="$files $2"; shift 2 ;;
	*) break ;;
	esac
done

# A cpio archive in newc format; there may be no cpio here.
field() { printf '%08X' "$1"; }
entry() { # name mode file
	size=$(stat -c %s "$3")
	printf 070701
	for value in 1 "$2" 0 0 1 0 "$size" 0 0 0 0 $((${#1} + 1)) 0; do field "$value"; done
	printf '%s\0' "$1"
	head -c $(((4 - (110 + ${#1} + 1) % 4) % 4)) /dev/zero
	cat "$3"
	head -c $(((4 - size % 4) % 4)) /dev/zero
}
printf '%s\0' "$@" > "$out/argv"
printf 'PATH=/bin\0HOME=/\0' > "$out/envp"
{
	entry .pvm/init $((0100755)) "$1"
	entry .pvm/argv $((0100644)) "$out/argv"
	entry .pvm/envp $((0100644)) "$out/envp"
	for pair in $files; do entry "${pair#*:}" $((0100644)) "${pair%%:*}"; done
	entry 'TRAILER!!!' 0 /dev/null
} > "$out/initrd.$$"
status=0
"$out/native-host" "$out/kernel.elf" "$memory" "$out/initrd.$$" || status=$?
rm -f "$out/initrd.$$"
exit $status
