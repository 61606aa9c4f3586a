/** The board: guest RAM, boot loaders and devices. Knows nothing of hypervisors. */
export { MachineError, type MachineErrorCode } from './errors.ts';
export { GuestRam, MAX_RAM, MIN_RAM, type E820Entry } from './ram.ts';
export { parseElf64, type ElfImage, type ElfSegment } from './boot/elf64.ts';
export { buildBootParams, BOOT_PARAMS_SIZE, type BootParams } from './boot/boot-params.ts';
export { identityMapSize, writeIdentityMap } from './boot/identity-map.ts';
export { buildCpio, type CpioFile } from './boot/cpio.ts';
export { loadLinuxElf, type BootState, type KernelImage } from './boot/linux-elf.ts';
export { PortBus, type PortDevice, type PortRange, type PortSize } from './devices/port-device.ts';
export { Uart16550 } from './devices/uart16550.ts';
export { DebugExit } from './devices/debug-exit.ts';
export { HostChannel, HOST_CHANNEL_PORT, HOST_CHANNEL_SIGNATURE, type GuestPowerOff, type HostChannelBackend } from './host-channel/host-channel.ts';
