/*
 * symbols.h - what function an address of code is in.
 *
 * An object's own table of symbols is read from its file, since that of the dynamic
 * linker has neither static functions nor a program's; where a file has none left, the
 * dynamic linker is asked. Other people's code: no lock of ours is held. By one thread
 * at a time, who writes a profile.
 */
#ifndef HAK_SYMBOLS_H
#define HAK_SYMBOLS_H

#include "base/base.h"

#define HAK_MODULES_MOST 512
#define HAK_BUILD_ID 20

/* One of an object's functions. */
struct hak_function {
    uint64_t start, end; /* in the file's addresses */
    uint64_t reach;      /* the largest end of this one and those before it */
    uint32_t symbol;
};

/* An object that is loaded: the program, a library. */
struct hak_module {
    uintptr_t base, end;
    const char *path; /* valid while it is loaded, and with these symbols */
    const char *file; /* its contents, or NULL */
    size_t bytes;
    const void *symbols; /* in it; NULL: none */
    size_t count;
    const char *strings;
    size_t strings_size;
    struct hak_function *function; /* by address, when first needed; or NULL */
    size_t functions;
    size_t function_bytes; /* of memory */
    uintptr_t bias;        /* from an address in the file to one in memory */
    unsigned char id[HAK_BUILD_ID];
    size_t id_size; /* 0: it has none */
};

struct hak_symbols {
    struct hak_module module[HAK_MODULES_MOST];
    size_t modules;
    bool safely;        /* without locks: haki_symbols_begin_safely */
    char program[1024]; /* its path */
    uintptr_t
        own; /* base of the object that this code is in, if its name is ours */
};

struct hak_symbol {
    const char *name;                /* NULL: not known */
    const struct hak_module *module; /* NULL: in none */
    uintptr_t at;                    /* where the function begins, or pc */
    bool ours;                       /* in a library that is HAKMEM's own */
};

/* The program itself becomes the first module. */
void haki_symbols_begin(struct hak_symbols *symbols);

/*
 * The same for a signal handler: no lock is taken, the dynamic linker is asked only
 * what it tells without one (_dl_find_object, of glibc 2.35 and later; else nothing is
 * found). haki_symbols_prepare: once before that, outside of handlers and locks.
 */
void haki_symbols_prepare(void);
void haki_symbols_begin_safely(struct hak_symbols *symbols);

void haki_symbols_find(struct hak_symbols *symbols, uintptr_t pc,
                       struct hak_symbol *symbol);
void haki_symbols_drop(struct hak_symbols *symbols);

#endif /* HAK_SYMBOLS_H */
