/*
 * elf.h - finds a loaded object's slots in its tables.
 *
 * A slot is a pointer in the object's data that the dynamic linker fills with
 * the address of an imported function; a relocation says where it is, of what
 * kind, and for which symbol. We know the two kinds that compilers make for
 * calls, JUMP_SLOT and GLOB_DAT, and that of an initialised pointer,
 * R_X86_64_64 or R_AARCH64_ABS64. (DT_RELR's relocations name no symbol, nor do
 * relative addresses and IRELATIVE in the other tables.)
 */
#ifndef HAK_NGX_ELF_H
#define HAK_NGX_ELF_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An object; it points into the object's own tables. */
struct hak_ngx_elf {
    const char *file; /* its path, "" for the program */
    uintptr_t base;
    const ElfW(Phdr) * headers;
    size_t nheaders;
    uintptr_t dynamic;
    /* Read-only since its relocations are done; whole pages. */
    uintptr_t relro_start, relro_end;
    const ElfW(Sym) * symbols;
    const char *strings;
    size_t strings_size;
    /* Its tables of symbols by name; either or both are NULL. */
    const uint32_t *hash, *gnu_hash;
    /* It influences where files that it opens are searched for. */
    bool has_runpath, has_rpath;
    /* The two tables of relocations: DT_RELA's and DT_JMPREL's. */
    struct {
        const ElfW(Rela) * at;
        size_t count;
    } tables[2];
};

/*
 * False: not a dynamic object, or one we can't read; *why is the reason, or
 * NULL.
 */
bool hak_ngx_elf_open(struct hak_ngx_elf *elf, const struct dl_phdr_info *info,
                      const char **why);

/*
 * Whether an address is in one of the object's segments, or in a writable one.
 */
bool hak_ngx_elf_has(const struct hak_ngx_elf *elf, uintptr_t address,
                     bool writable);

/* Whether it has a function or a variable of that name for other objects. */
bool hak_ngx_elf_defines(const struct hak_ngx_elf *elf, const char *name);

enum hak_ngx_kind {
    HAK_NGX_SLOT,       /* one of the three: the word is the symbol's address */
    HAK_NGX_NO_ADDRESS, /* something else about the symbol, such as its size */
    HAK_NGX_UNKNOWN
};

/* A relocation that names a symbol. */
struct hak_ngx_reloc {
    const char *name;
    uintptr_t at;
    unsigned type;
    enum hak_ngx_kind kind;
    bool imported; /* the symbol is another object's */
    uintptr_t own; /* its address if it is this object's, or 0 */
    bool is_lazy;  /* JUMP_SLOT: until it is bound it leads into the object */
    /* ... but it has an address here, which others may use; or 0. */
    uintptr_t stands;
};

/* The i-th relocation of a table. False: it names no symbol. */
bool hak_ngx_elf_reloc(const struct hak_ngx_elf *elf, unsigned table, size_t i,
                       struct hak_ngx_reloc *reloc);

#endif /* HAK_NGX_ELF_H */
