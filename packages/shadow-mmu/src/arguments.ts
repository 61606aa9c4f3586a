/** @throws RangeError unless `value` is an integer from `least` to `most` */
export function checkRange(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) throw new RangeError(`${name} must be an integer from ${least} to ${most}, got ${value}`);
}

/** @throws RangeError unless the area is whole pages inside the linear memory */
export function checkArea(name: string, base: number, bytes: number, memoryBytes: number): void {
  if (base % 4096 !== 0 || bytes % 4096 !== 0 || base <= 0 || bytes <= 0 || base + bytes > memoryBytes) {
    throw new RangeError(`${name} must be whole 4 KiB pages inside the ${memoryBytes} bytes of memory, got ${base}+${bytes}`);
  }
}

/** @throws RangeError unless [gpa, gpa + bytes) is whole pages */
export function checkPages(gpa: number, bytes: number): void {
  if (!Number.isInteger(gpa / 4096) || !Number.isInteger(bytes / 4096) || gpa < 0 || bytes <= 0 || gpa + bytes > 2 ** 48) {
    throw new RangeError(`a guest-physical range must be whole 4 KiB pages below 2^48, got ${gpa}+${bytes}`);
  }
}
