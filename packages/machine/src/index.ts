/** The board: guest RAM, boot loaders and devices. Knows nothing of hypervisors. */

export { Board, type BoardOptions, MAX_BOARD_VCPUS } from './board/board.ts';
export type { MmioDevice, MmioSize } from './board/mmio-bus.ts';
export type { InterruptSink } from './board/vcpu-interrupts.ts';
export { BOOT_PARAMS_SIZE, type BootParams, buildBootParams } from './boot/boot-params.ts';
export { buildCpio, type CpioEntry, type CpioFile, cpioPieces } from './boot/cpio.ts';
export { type ElfImage, type ElfSegment, parseElf64 } from './boot/elf64.ts';
export { type EntryRegister, type EntryState, longModeEntry, protectedModeEntry, type SegmentState } from './boot/entry-state.ts';
export { identityMapSize, writeIdentityMap } from './boot/identity-map.ts';
export { type BootState, bootLinuxElf, type KernelImage, loadLinuxElf } from './boot/linux-elf.ts';
export { type BootProtocol, detectProtocol, loadKernel } from './boot/load-kernel.ts';
export { DebugExit } from './devices/debug-exit.ts';
export { PortBus, type PortDevice, type PortRange, type PortSize } from './devices/port-device.ts';
export { Uart16550 } from './devices/uart16550.ts';
export type { TextRow } from './devices/vga-text.ts';
export { fileProblem, MachineError, type MachineErrorCode } from './errors.ts';
export { type GuestPowerOff, HOST_CHANNEL_PORT, HOST_CHANNEL_SIGNATURE, HostChannel, type HostChannelBackend } from './host-channel/host-channel.ts';
export type { LocalApic } from './interrupts/local-apic.ts';
export { type E820Entry, GuestRam, MAX_RAM, MIN_RAM } from './ram.ts';
export { isShareTag, type ShareOptions } from './share/share.ts';
export type { BlockBackend } from './storage/block-backend.ts';
export type { DriveOptions } from './storage/drive.ts';
export { type ConsolePortOptions, MAX_CONSOLE_PORTS, VirtioConsole } from './virtio/console.ts';
export { VirtioVsock } from './virtio/vsock.ts';
export { VsockConnection } from './virtio/vsock-connection.ts';
