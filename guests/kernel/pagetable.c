/*
 * The page tables. A store to a table in use may cost an exit (the hypervisor write-protects what it
 * shadows), so new tables are filled before they are linked, and page-table pages stay for reuse.
 */
#include "abi.h"
#include "mm.h"
#include "paravirt/paravirt.h"

/* More unmapped pages than this are flushed together. */
#define FLUSH_SINGLE_MAX 8
#define GATHER_MAX 256
/* Bytes that one last-level table maps. */
#define TABLE_SPAN (512ull * PAGE_SIZE)

u64 page_table_root;

static u32 entry_index(u64 address, u32 level)
{
	return (address >> (PAGE_SHIFT + 9 * (level - 1))) & 511;
}

static u64 *table_of(u64 entry)
{
	return phys_to_virt(entry & PTE_FRAME);
}

u64 prot_to_entry(u32 prot)
{
	u64 entry = PTE_P | PTE_U | PTE_A | PTE_D;

	if (prot & PROT_WRITE)
		entry |= PTE_W;
	if (!(prot & PROT_EXEC))
		entry |= PTE_NX;
	/* PROT_NONE: a supervisor-only translation keeps the frame and denies the program. */
	if (!(prot & (PROT_READ | PROT_WRITE | PROT_EXEC)))
		entry &= ~PTE_U;
	return entry;
}

/* The last-level table found last. Tables are never freed, so it stays valid. */
static u64 cached_span = ~0ull, *cached_table;

u64 *find_entry(u64 address)
{
	u64 *table = phys_to_virt(page_table_root);

	if (address / TABLE_SPAN == cached_span)
		return &cached_table[entry_index(address, 1)];
	for (u32 level = 4; level > 1; level--) {
		u64 entry = table[entry_index(address, level)];
		if (!(entry & PTE_P))
			return NULL;
		table = table_of(entry);
	}
	cached_span = address / TABLE_SPAN;
	cached_table = table;
	return &table[entry_index(address, 1)];
}

result_t map_page(u64 address, u64 entry)
{
	u64 *table = phys_to_virt(page_table_root), *existing = find_entry(address);
	u32 top = 4;

	if (existing) {
		pv->set_entry(existing, entry);
		return 0;
	}
	for (; top > 1; top--) {
		u64 e = table[entry_index(address, top)];
		if (!(e & PTE_P))
			break;
		table = table_of(e);
	}
	for (u32 level = 1; level < top; level++) {
		u64 *fresh = page_alloc_zeroed();
		if (!fresh)
			return -ENOMEM;
		fresh[entry_index(address, level)] = entry;
		entry = virt_to_phys(fresh) | PTE_TABLE;
	}
	pv->set_entry(&table[entry_index(address, top)], entry);
	return 0;
}

/* Frames and addresses whose entries were cleared, until the TLB has forgotten them. */
static struct {
	u64 entries[GATHER_MAX];
	u64 addresses[FLUSH_SINGLE_MAX];
	u32 count;
} gather;

static void gather_flush(bool free_frames)
{
	if (gather.count > FLUSH_SINGLE_MAX)
		pv->flush_all();
	else
		for (u32 i = 0; i < gather.count; i++)
			pv->flush_page(gather.addresses[i]);
	for (u32 i = 0; free_frames && i < gather.count; i++)
		if (!(gather.entries[i] & PTE_SHARED))
			page_free(table_of(gather.entries[i]));
	gather.count = 0;
}

static void gather_add(u64 address, u64 entry, bool free_frames)
{
	if (gather.count == GATHER_MAX)
		gather_flush(free_frames);
	if (gather.count < FLUSH_SINGLE_MAX)
		gather.addresses[gather.count] = address;
	gather.entries[gather.count++] = entry;
}

/*
 * Step through the last-level entries of [*address, end) whose tables exist. *entry is NULL at first, and
 * afterwards the entry of *address; false at the end.
 */
static bool next_entry(u64 *address, u64 end, u64 **entry)
{
	if (*entry) {
		*address += PAGE_SIZE;
		if (*address < end && entry_index(*address, 1)) {
			++*entry;
			return true;
		}
	}
	for (; *address < end; *address = ALIGN_DOWN(*address, TABLE_SPAN) + TABLE_SPAN) {
		*entry = find_entry(*address);
		if (*entry)
			return true;
	}
	return false;
}

void unmap_range(u64 start, u64 end)
{
	u64 *entry = NULL;

	for (u64 a = start; next_entry(&a, end, &entry);) {
		u64 old = *entry;
		if (!(old & PTE_P))
			continue;
		pv->set_entry(entry, 0);
		gather_add(a, old, true);
	}
	gather_flush(true);
}

void protect_range(u64 start, u64 end, u32 prot)
{
	u64 *entry = NULL;

	for (u64 a = start; next_entry(&a, end, &entry);) {
		u64 old = *entry;
		u64 value = (old & (PTE_FRAME | PTE_SHARED)) | prot_to_entry(prot);
		if (!(old & PTE_P) || old == value)
			continue;
		pv->set_entry(entry, value);
		gather_add(a, old, false);
	}
	gather_flush(false);
}

result_t move_range(u64 from, u64 to, u64 length)
{
	u64 *entry = NULL;
	result_t result = 0;

	for (u64 a = from; next_entry(&a, from + length, &entry);) {
		u64 old = *entry;
		if (!(old & PTE_P))
			continue;
		result = map_page(a - from + to, old);
		if (result)
			break;
		pv->set_entry(entry, 0);
		gather_add(a, old, false);
	}
	gather_flush(false);
	return result;
}
