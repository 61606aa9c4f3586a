#!/bin/sh
# Assembles the self-checking guests to flat binaries: sh build.sh (needs binutils). The binaries are kept beside the sources.
set -e
cd "$(dirname "$0")"
for source in *.S; do
  name="${source%.S}"
  as --64 -o "/tmp/$name.o" "$source"
  ld -m elf_x86_64 -Ttext=0x8000 -o "/tmp/$name.elf" "/tmp/$name.o"
  objcopy -O binary "/tmp/$name.elf" "$name.bin"
done
