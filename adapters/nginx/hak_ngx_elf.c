/*
 * hak_ngx_elf.c - reads a loaded object's tables; changes nothing.
 */
#include "hak_ngx_elf.h"

#include <string.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__LP64__)
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#define GLOB_DAT R_X86_64_GLOB_DAT
#elif defined(__aarch64__) && defined(__LP64__)
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#define GLOB_DAT R_AARCH64_GLOB_DAT
#else /* hak_ngx_elf_open refuses all objects */
#define JUMP_SLOT UINT32_MAX
#define GLOB_DAT UINT32_MAX
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

/* The dynamic section's entries that matter, by tag. */
enum { TAGS = DT_JMPREL + 1 };

struct entries {
    ElfW(Xword) value[TAGS];
    bool has[TAGS];
};

static void read_entries(const struct hak_ngx_elf *elf, struct entries *entries)
{
    const ElfW(Dyn) *entry = (const ElfW(Dyn) *)elf->dynamic;

    memset(entries, 0, sizeof(*entries));
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag > 0 && entry->d_tag < TAGS) {
            entries->value[entry->d_tag] = entry->d_un.d_val;
            entries->has[entry->d_tag] = true;
        }
    }
}

/*
 * An address of the dynamic section. glibc's dynamic linker has added the base
 * to it already, others leave it to the reader. 0: it leads nowhere.
 */
static uintptr_t address_of(const struct hak_ngx_elf *elf,
                            const struct entries *entries, int tag)
{
    uintptr_t address = entries->value[tag];

    if (!entries->has[tag]) {
        return 0;
    }
    if (!hak_ngx_elf_has(elf, address, false)) {
        address += elf->base;
    }
    return hak_ngx_elf_has(elf, address, false) ? address : 0;
}

static void open_tables(struct hak_ngx_elf *elf, const struct entries *entries)
{
    uintptr_t rela = address_of(elf, entries, DT_RELA);
    uintptr_t jump = address_of(elf, entries, DT_JMPREL);
    size_t rela_size = rela != 0 ? entries->value[DT_RELASZ] : 0;
    size_t jump_size = jump != 0 ? entries->value[DT_PLTRELSZ] : 0;

    /* Some linkers make the one table a part of the other. */
    if (jump - rela < rela_size) {
        jump_size = 0;
    }
    elf->tables[0].at = (const ElfW(Rela) *)rela;
    elf->tables[0].count = rela_size / sizeof(ElfW(Rela));
    elf->tables[1].at = (const ElfW(Rela) *)jump;
    elf->tables[1].count = jump_size / sizeof(ElfW(Rela));
}

static const char *wrong_with(const struct hak_ngx_elf *elf,
                              const struct entries *entries)
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
    if (elf->symbols == NULL || elf->strings == NULL) {
        return "it has no symbol table";
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
            /* A page that it covers in part only stays writable. */
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
    *why = wrong_with(elf, &entries);
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
    reloc->known = reloc->type == JUMP_SLOT || reloc->type == GLOB_DAT;
    reloc->imported = symbol->st_shndx == SHN_UNDEF;
    reloc->own = reloc->imported ? 0 : elf->base + symbol->st_value;
    reloc->stands = reloc->imported && symbol->st_value != 0;
    return true;
}
