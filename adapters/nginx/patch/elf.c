/*
 * elf.c - reads a loaded object's tables; changes nothing.
 */
#include "elf.h"

#include <string.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__LP64__)
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#define GLOB_DAT R_X86_64_GLOB_DAT
#define WORD R_X86_64_64
/* What is filled in is not an address. */
#define IS_NO_ADDRESS(type)                                                    \
    ((type) == R_X86_64_NONE || (type) == R_X86_64_SIZE32 ||                   \
     (type) == R_X86_64_SIZE64)
#elif defined(__aarch64__) && defined(__LP64__)
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#define GLOB_DAT R_AARCH64_GLOB_DAT
#define WORD R_AARCH64_ABS64
#define IS_NO_ADDRESS(type) ((type) == R_AARCH64_NONE)
#else /* hak_ngx_elf_open refuses all objects */
#define JUMP_SLOT UINT32_MAX
#define GLOB_DAT UINT32_MAX
#define WORD UINT32_MAX
#define IS_NO_ADDRESS(type) false
#endif

bool hak_ngx_elf_has(const struct hak_ngx_elf *elf, uintptr_t address,
                     bool writable)
{
    for (size_t i = 0; i < elf->nheaders; i++) {
        const ElfW(Phdr) *header = &elf->headers[i];

        if (header->p_type == PT_LOAD &&
            address - (elf->base + header->p_vaddr) < header->p_memsz &&
            (!writable || (header->p_flags & PF_W) != 0)) {
            return true;
        }
    }
    return false;
}

/* The entries of the dynamic section that matter, by tag. */
enum { TAGS = DT_RUNPATH + 1 };

struct entries {
    ElfW(Xword) value[TAGS];
    bool has[TAGS];
    ElfW(Xword) gnu_hash; /* an address, or 0 */
    ElfW(Xword) flags;    /* DT_FLAGS_1 */
};

static void read_entries(const struct hak_ngx_elf *elf, struct entries *entries)
{
    const ElfW(Dyn) *entry = (const ElfW(Dyn) *)elf->dynamic;

    memset(entries, 0, sizeof(*entries));
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag > 0 && entry->d_tag < TAGS) {
            entries->value[entry->d_tag] = entry->d_un.d_val;
            entries->has[entry->d_tag] = true;
        } else if (entry->d_tag == DT_GNU_HASH) {
            entries->gnu_hash = entry->d_un.d_ptr;
        } else if (entry->d_tag == DT_FLAGS_1) {
            entries->flags = entry->d_un.d_val;
        }
    }
}

/*
 * An address from the dynamic section. glibc's dynamic linker has already added
 * the base to it, others leave that to the reader. 0: it leads nowhere.
 */
static uintptr_t placed(const struct hak_ngx_elf *elf, uintptr_t address)
{
    if (!hak_ngx_elf_has(elf, address, false)) {
        address += elf->base;
    }
    return hak_ngx_elf_has(elf, address, false) ? address : 0;
}

static uintptr_t address_of(const struct hak_ngx_elf *elf,
                            const struct entries *entries, int tag)
{
    return entries->has[tag] ? placed(elf, entries->value[tag]) : 0;
}

static void open_tables(struct hak_ngx_elf *elf, const struct entries *entries)
{
    uintptr_t rela = address_of(elf, entries, DT_RELA);
    uintptr_t jump = address_of(elf, entries, DT_JMPREL);
    size_t rela_size = rela != 0 ? entries->value[DT_RELASZ] : 0;
    size_t jump_size = jump != 0 ? entries->value[DT_PLTRELSZ] : 0;

    /* Some linkers make one table part of the other. */
    if (jump - rela < rela_size) {
        jump_size = 0;
    }
    elf->tables[0].at = (const ElfW(Rela) *)rela;
    elf->tables[0].count = rela_size / sizeof(ElfW(Rela));
    elf->tables[1].at = (const ElfW(Rela) *)jump;
    elf->tables[1].count = jump_size / sizeof(ElfW(Rela));
}

static const char *wrong_with(const struct entries *entries)
{
    if (JUMP_SLOT == UINT32_MAX) {
        return "this processor's relocations are not known";
    }
    if (entries->has[DT_REL] ||
        (entries->has[DT_PLTREL] && entries->value[DT_PLTREL] != DT_RELA)) {
        return "it has relocations without addends (DT_REL)";
    }
    if (entries->has[DT_RELAENT] &&
        entries->value[DT_RELAENT] != sizeof(ElfW(Rela))) {
        return "its relocations are of an unknown size";
    }
    return NULL;
}

static void read_headers(struct hak_ngx_elf *elf)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < elf->nheaders; i++) {
        const ElfW(Phdr) *header = &elf->headers[i];
        uintptr_t start = elf->base + header->p_vaddr;

        if (header->p_type == PT_DYNAMIC) {
            elf->dynamic = start;
        } else if (header->p_type == PT_GNU_RELRO) {
            /* A page that is only partly covered stays writable. */
            elf->relro_start = start & ~(page - 1);
            elf->relro_end = (start + header->p_memsz) & ~(page - 1);
        }
    }
}

bool hak_ngx_elf_open(struct hak_ngx_elf *elf, const struct dl_phdr_info *info,
                      const char **why)
{
    struct entries entries;

    *why = NULL;
    *elf = (struct hak_ngx_elf){.file = info->dlpi_name,
                                .base = info->dlpi_addr,
                                .headers = info->dlpi_phdr,
                                .nheaders = info->dlpi_phnum};
    read_headers(elf);
    if (elf->dynamic == 0) {
        return false;
    }
    read_entries(elf, &entries);
    elf->symbols = (const ElfW(Sym) *)address_of(elf, &entries, DT_SYMTAB);
    elf->strings = (const char *)address_of(elf, &entries, DT_STRTAB);
    elf->strings_size = entries.value[DT_STRSZ];
    elf->hash = (const uint32_t *)address_of(elf, &entries, DT_HASH);
    elf->gnu_hash = entries.gnu_hash != 0
                        ? (const uint32_t *)placed(elf, entries.gnu_hash)
                        : NULL;
    elf->has_runpath =
        entries.has[DT_RUNPATH] || (entries.flags & DF_1_NODEFLIB) != 0;
    elf->has_rpath = entries.has[DT_RPATH];
    if (elf->symbols == NULL || elf->strings == NULL) {
        return false; /* it names no symbol */
    }
    *why = wrong_with(&entries);
    if (*why != NULL) {
        return false;
    }
    open_tables(elf, &entries);
    return true;
}

bool hak_ngx_elf_reloc(const struct hak_ngx_elf *elf, unsigned table, size_t i,
                       struct hak_ngx_reloc *reloc)
{
    const ElfW(Rela) *rela = &elf->tables[table].at[i];
    size_t number = ELF64_R_SYM(rela->r_info);
    const ElfW(Sym) *symbol = &elf->symbols[number];

    if (number == 0 || symbol->st_name >= elf->strings_size) {
        return false;
    }
    reloc->name = elf->strings + symbol->st_name;
    reloc->at = elf->base + rela->r_offset;
    reloc->type = (unsigned)ELF64_R_TYPE(rela->r_info);
    reloc->kind = IS_NO_ADDRESS(reloc->type) ? HAK_NGX_NO_ADDRESS
                  : rela->r_addend != 0      ? HAK_NGX_UNKNOWN
                  : reloc->type == JUMP_SLOT || reloc->type == GLOB_DAT ||
                          reloc->type == WORD
                      ? HAK_NGX_SLOT
                      : HAK_NGX_UNKNOWN;
    reloc->imported = symbol->st_shndx == SHN_UNDEF;
    reloc->own = reloc->imported ? 0 : elf->base + symbol->st_value;
    reloc->is_lazy = reloc->type == JUMP_SLOT;
    reloc->stands = reloc->imported && symbol->st_value != 0
                        ? elf->base + symbol->st_value
                        : 0;
    return true;
}

/* ---- what an object defines ------------------------------------------------ */

static bool is_definition(const struct hak_ngx_elf *elf, size_t number,
                          const char *name)
{
    const ElfW(Sym) *symbol = &elf->symbols[number];

    return symbol->st_shndx != SHN_UNDEF && symbol->st_value != 0 &&
           ELF64_ST_BIND(symbol->st_info) != STB_LOCAL &&
           symbol->st_name < elf->strings_size &&
           strcmp(elf->strings + symbol->st_name, name) == 0;
}

/* A DT_HASH table: buckets and chains, both with numbers of symbols. */
static bool in_hash(const struct hak_ngx_elf *elf, const char *name)
{
    const uint32_t *buckets = elf->hash + 2;
    const uint32_t *chains = buckets + elf->hash[0];
    uint32_t hash = 0;

    for (const char *c = name; *c != '\0'; c++) {
        hash = (hash << 4) + (unsigned char)*c;
        hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
    }
    if (elf->hash[0] == 0) {
        return false;
    }
    for (uint32_t i = buckets[hash % elf->hash[0]]; i != 0; i = chains[i]) {
        if (is_definition(elf, i, name)) {
            return true;
        }
    }
    return false;
}

/*
 * A DT_GNU_HASH table: how many buckets, the first symbol in it, how many words
 * (64 bits each) the filter has, which is not used here; then the filter, the
 * buckets, and for each symbol its hash, whose lowest bit ends a bucket's
 * chain.
 */
static bool in_gnu_hash(const struct hak_ngx_elf *elf, const char *name)
{
    const uint32_t *table = elf->gnu_hash;
    uint32_t nbuckets = table[0], first = table[1];
    const uint32_t *buckets = table + 4 + 2 * (size_t)table[2];
    const uint32_t *hashes = buckets + nbuckets;
    uint32_t hash = 5381, i;

    for (const char *c = name; *c != '\0'; c++) {
        hash = hash * 33 + (unsigned char)*c;
    }
    i = nbuckets != 0 ? buckets[hash % nbuckets] : 0;
    if (i < first || i == 0) {
        return false;
    }
    for (;; i++) {
        uint32_t other = hashes[i - first];

        if ((other | 1) == (hash | 1) && is_definition(elf, i, name)) {
            return true;
        }
        if ((other & 1) != 0) {
            return false;
        }
    }
}

bool hak_ngx_elf_defines(const struct hak_ngx_elf *elf, const char *name)
{
    return elf->gnu_hash != NULL ? in_gnu_hash(elf, name)
                                 : elf->hash != NULL && in_hash(elf, name);
}
