/**
 * The invariants of the shadow structure, checked by walking all of it. For tests and for runs that ask for it.
 */
import { GuestEntries } from './guest-entries.ts';
import { entryGpa, type GuestWalk } from './guest-walk.ts';
import {
  ACC_ALL,
  ACC_U,
  ACC_W,
  ACC_X,
  accessOf,
  PTE_A,
  PTE_D,
  PTE_P,
  PTE_PS,
  PTE_U,
  PTE_W,
  ROLE_DIRECT,
  ROLE_NO_WP,
  ROLE_SMEP,
  ROLE_TOP3,
  ROLE_UNTRACKED,
  ROLE_USER,
} from './paging.ts';
import { modeOfRole, roleAccess } from './shadow-fill.ts';
import { LOG_CLEAN, type ShadowPages } from './shadow-pages.ts';

type Fail = (what: string, sidx: number) => never;

/** What the checks look at: the structure, and how the guest's entries are read. */
export interface CheckedShadow {
  readonly pages: ShadowPages;
  readonly walk: GuestWalk;
  readonly gpaToHpa: (gpa: number) => number;
  /** One root for both privileges, whose leaves have the guest's U bit. */
  readonly isKvm: boolean;
  /** All writes of the guest to its tables have been seen, so entries have to agree with them. */
  readonly isFollowed: boolean;
}

/** @throws Error naming the broken invariant and the shadow entry. */
export function checkShadow(shadow: CheckedShadow): void {
  const { pages } = shadow;
  const { pool } = pages;
  const fail: Fail = (what, sidx) => {
    throw new Error(`shadow invariant broken: ${what} (frame ${sidx >>> 9} role 0x${(pool.role[sidx >>> 9] ?? 0).toString(16)} entry ${sidx & 511})`);
  };
  const listed = checkLists(pages, fail);
  const tables = new Uint16Array(pages.ramFrames);
  const inSync = new Uint16Array(pages.ramFrames);
  let free = 0;
  for (let frame = 0; frame < pool.frames; frame++) {
    const role = pool.role[frame] as number;
    checkFrame(shadow, frame, listed, fail);
    if (role === 0) {
      if (frame !== 0) free++;
    } else if ((role & ROLE_UNTRACKED) === 0) {
      const key = pool.key[frame] as number;
      tables[key] = (tables[key] as number) + 1;
      if (pool.unsync[frame] === 0) inSync[key] = (inSync[key] as number) + 1;
    }
  }
  if (free !== pool.free) broken(`${free} free frames, ${pool.free} counted`);
  for (let ram = 0; ram < pages.ramFrames; ram++) {
    if (tables[ram] !== pages.tables[ram]) broken(`RAM frame ${ram} has ${tables[ram]} shadow pages, ${pages.tables[ram]} counted`);
    if (inSync[ram] !== pages.inSync[ram]) broken(`RAM frame ${ram} has ${inSync[ram]} shadow pages in step, ${pages.inSync[ram]} counted`);
  }
  checkBlocks(pages);
}

function broken(what: string): never {
  throw new Error(`shadow invariant broken: ${what}`);
}

/** Every list is linked both ways and holds the entries that belong to it; returns which entries are in one. */
function checkLists(pages: ShadowPages, fail: Fail): Uint8Array {
  const { pool } = pages;
  const listed = new Uint8Array(pool.frames * 512);
  for (let head = 0; head < pool.heads.length; head++) {
    let prev = ~head;
    for (let sidx = pool.heads[head] as number; sidx !== 0; prev = sidx, sidx = pool.next[sidx] as number) {
      if (pool.prev[sidx] !== prev) fail('list links disagree', sidx);
      if (listed[sidx] !== 0) fail('entry is in two lists', sidx);
      listed[sidx] = 1;
      if (expectedHead(pages, sidx) !== head) fail('entry is in the wrong list', sidx);
    }
  }
  return listed;
}

function checkFrame(shadow: CheckedShadow, frame: number, listed: Uint8Array, fail: Fail): void {
  const { pages } = shadow;
  const { pool } = pages;
  const role = pool.role[frame] as number;
  const entries = new GuestEntries(pages);
  let present = 0;
  let unsyncChildren = 0;
  if (role !== 0 || pool.present[frame] !== 0) {
    for (let sidx = frame * 512; sidx < frame * 512 + 512; sidx++) {
      const isMarked = ((pool.unsyncBits[sidx >>> 5] as number) & (1 << (sidx & 31))) !== 0;
      if (isMarked) unsyncChildren++;
      const low = pool.low(sidx);
      if (low === 0) continue;
      present++;
      if (role === 0) fail('entry in a free frame', sidx);
      if (listed[sidx] !== 1) fail('present entry is in no list', sidx);
      checkEntry(shadow, entries, sidx, fail);
      if (isMarked || pages.isLeaf(low, pool.level(frame))) continue;
      const child = pages.childOf(low);
      if (pool.unsync[child] !== 0 || pool.unsyncChildren[child] !== 0) fail('entry leads to an unsync page but is not marked', sidx);
    }
  }
  if (present !== pool.present[frame]) fail(`present count ${pool.present[frame]} but ${present} entries`, frame * 512);
  if (unsyncChildren !== pool.unsyncChildren[frame]) fail(`${unsyncChildren} entries lead to unsync pages, ${pool.unsyncChildren[frame]} counted`, frame * 512);
  if (pool.unsync[frame] !== 0 && (pool.level(frame) !== 1 || (role & ROLE_UNTRACKED) !== 0)) fail('unsync page that is no last-level table', frame * 512);
  if ((pool.currentUses[frame] as number) > (pool.slotUses[frame] as number)) fail('root in use but in no slot', frame * 512);
  if (role === 0 && pool.slotUses[frame] !== 0) fail('freed root still in a slot', frame * 512);
}

function checkBlocks(pages: ShadowPages): void {
  const { pool } = pages;
  for (let block = 0; block < pages.blockTracked.length; block++) {
    const tracked = pages.tables.subarray(block * 512, block * 512 + 512).reduce((sum, count) => sum + (count !== 0 ? 1 : 0), 0);
    if (tracked !== pages.blockTracked[block]) broken(`block ${block} has ${tracked} tracked frames, ${pages.blockTracked[block]} counted`);
    if (tracked !== 0 && pool.heads[pool.blockHeads + block] !== 0) broken(`large leaf over tracked block ${block}`);
  }
}

function expectedHead(pages: ShadowPages, sidx: number): number {
  const { pool } = pages;
  const low = pool.low(sidx);
  const level = pool.level(sidx >>> 9);
  if (!pages.isLeaf(low, level)) return pool.parentHeads + pages.childOf(low);
  const ram = pages.ramFrameOf(low);
  return level === 1 ? ram : pool.blockHeads + (ram >>> 9);
}

function checkEntry(shadow: CheckedShadow, entries: GuestEntries, sidx: number, fail: Fail): void {
  const { pages } = shadow;
  const { pool } = pages;
  const role = pool.role[sidx >>> 9] as number;
  const level = pool.level(sidx >>> 9);
  const low = pool.low(sidx);
  if (pages.isLeaf(low, level)) {
    const ram = pages.ramFrameOf(low);
    if (ram < 0 || ram >= pages.ramFrames) fail('leaf outside RAM', sidx);
    if ((low & PTE_W) !== 0 && pages.inSync[ram] !== 0) fail('writable leaf of a page table in step', sidx);
    if ((low & PTE_W) !== 0 && pages.logged[ram] === LOG_CLEAN) fail('writable leaf of a page that the dirty log calls clean', sidx);
  } else {
    const child = pages.childOf(low);
    if (child <= 0 || child >= pool.frames || pool.role[child] === 0) fail('entry leads to a free frame', sidx);
    if (pool.level(child) !== level - 1) fail('child has the wrong level', sidx);
  }
  // The top of three levels follows no table in memory; a page out of step may say anything that was true once.
  if (!shadow.isFollowed || (role & ROLE_TOP3) !== 0 || pool.unsync[sidx >>> 9] !== 0) return;
  const rights = (role & ROLE_DIRECT) !== 0 ? roleAccess(role) : checkAgainstGuest(shadow, entries, sidx, fail);
  if ((role & ROLE_USER) !== 0 && (rights & ACC_U) === 0) fail('supervisor page in a user shadow', sidx);
  if (pages.isLeaf(low, level)) checkRights(shadow, sidx, rights, fail);
}

/** The entry is what the guest's table says; returns the rights that gives. */
function checkAgainstGuest(shadow: CheckedShadow, entries: GuestEntries, sidx: number, fail: Fail): number {
  const { pages, walk, gpaToHpa } = shadow;
  const { pool } = pages;
  const role = pool.role[sidx >>> 9] as number;
  const level = pool.level(sidx >>> 9);
  const low = pool.low(sidx);
  entries.read(sidx >>> 9, sidx & 511);
  const { low: guestLow, high: guestHigh } = entries;
  if ((guestLow & (PTE_P | PTE_A)) !== (PTE_P | PTE_A)) fail('shadow entry but the guest has none', sidx);
  if (walk.reserved(guestLow, guestHigh, level, modeOfRole(role)) !== 0) fail('guest entry has reserved bits', sidx);
  let rights = roleAccess(role) & accessOf(guestLow, guestHigh);
  const guestLeaf = level === 1 || (guestLow & PTE_PS) !== 0;
  if (guestLeaf && (guestLow & PTE_D) === 0) rights &= ~ACC_W;
  const gpa = entryGpa(guestLow, guestHigh);
  if (pages.isLeaf(low, level)) {
    if (!guestLeaf) fail('shadow leaf for a guest table', sidx);
    const page = (pages.ramBase + pages.ramFrameOf(low)) * 4096;
    if (gpaToHpa(level === 1 ? gpa : gpa - (gpa & 0x1f_ffff)) !== page) fail('leaf maps another page than the guest', sidx);
    return rights;
  }
  const child = pages.childOf(low);
  const childRole = pool.role[child] as number;
  if (((childRole & ROLE_DIRECT) !== 0) !== guestLeaf) fail('child of the wrong kind', sidx);
  // The dirty bit may have been set through another mapping of the same large entry since: then the child only lacks ACC_W still.
  const difference = roleAccess(childRole) ^ rights;
  const isWithoutWrite = guestLeaf && difference === ACC_W && (rights & ACC_W) !== 0;
  if (difference !== 0 && !isWithoutWrite && !(guestLeaf && isSupervisors(role, rights, roleAccess(childRole))))
    fail('child has other rights than the walk', sidx);
  if (!guestLeaf && gpaToHpa(gpa) !== (pages.ramBase + (pool.key[child] as number)) * 4096) fail('child of another guest table', sidx);
  return rights;
}

/** Whether rights are those of a page that was given to the supervisor for a write while CR0.WP is 0. */
function isSupervisors(role: number, guest: number, given: number): boolean {
  if ((role & ROLE_NO_WP) === 0 || (guest & ACC_W) !== 0 || (given & ACC_W) === 0) return false;
  return (given & ~ACC_W & ~guest & ACC_ALL) === 0;
}

function checkRights(shadow: CheckedShadow, sidx: number, rights: number, fail: Fail): void {
  const { pool } = shadow.pages;
  const role = pool.role[sidx >>> 9] as number;
  const low = pool.low(sidx);
  const isExecutable = (pool.words[pool.word0 + sidx * 2 + 1] as number) >= 0;
  const isUser = (low & PTE_U) !== 0;
  const isWritable = (low & PTE_W) !== 0;
  if (isWritable && (rights & ACC_W) === 0 && ((role & ROLE_NO_WP) === 0 || (shadow.isKvm && isUser))) fail('writable leaf without the right', sidx);
  if (shadow.isKvm && isUser && (rights & ACC_U) === 0) fail('user leaf without the right', sidx);
  if (shadow.isKvm && !isUser && (rights & ACC_U) !== 0 && (role & ROLE_NO_WP) === 0) fail('leaf taken from the user', sidx);
  if (!isExecutable) return;
  if ((rights & ACC_X) === 0) fail('executable leaf without the right', sidx);
  const isKept = shadow.isKvm ? !isUser && (rights & ACC_U) !== 0 : (rights & ACC_U) !== 0;
  if (isKept && (role & ROLE_SMEP) !== 0) fail('leaf executable by the supervisor although SMEP is on', sidx);
}
