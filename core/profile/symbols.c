/*
 * symbols.c - what function an address of code is in: see symbols.h.
 *
 * Tested by tests/unit/profile/symbols.c.
 */
#include "profile/symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "os/os.h"

/* Weak: a static program need not have it. */
extern __typeof__(dladdr) dladdr __attribute__((weak));
extern __typeof__(dlsym) dlsym __attribute__((weak));

/* glibc's _dl_find_object and what it fills, as far as it matters; room for the rest. */
struct symbols_object {
    unsigned long long flags;
    void *start, *end;
    struct link_map *map;
    void *more[16];
};
typedef int symbols_finder(void *pc, struct symbols_object *object);
static _Atomic(symbols_finder *) symbols_find_object;

/* ---- an object's file --------------------------------------------------------- */

/* Whether n bytes at a distance lie in the file. */
static bool symbols_has(const struct hak_module *module, size_t at, size_t n)
{
    return at <= module->bytes && n <= module->bytes - at;
}

static const ElfW(Ehdr) * symbols_head(const struct hak_module *module)
{
    const ElfW(Ehdr) *head = (const void *)module->file;

    return symbols_has(module, 0, sizeof(*head)) &&
                   memcmp(head->e_ident, ELFMAG, SELFMAG) == 0 &&
                   head->e_ident[EI_CLASS] ==
                       (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)
               ? head
               : NULL;
}

static void symbols_read_note(struct hak_module *module, size_t at, size_t n)
{
    while (n >= sizeof(ElfW(Nhdr)) && symbols_has(module, at, n)) {
        const ElfW(Nhdr) *note = (const void *)(module->file + at);
        size_t name = haki_round_up(note->n_namesz, 4);
        size_t all = sizeof(*note) + name + haki_round_up(note->n_descsz, 4);

        if (all > n) {
            return;
        }
        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
            memcmp(note + 1, "GNU", 4) == 0) {
            module->id_size = haki_min(note->n_descsz, HAK_BUILD_ID);
            memcpy(module->id, (const char *)(note + 1) + name,
                   module->id_size);
            return;
        }
        at += all;
        n -= all;
    }
}

/* Where it lies in memory, by its segments. */
static void symbols_read_segments(struct hak_module *module,
                                  const ElfW(Ehdr) * head)
{
    const ElfW(Phdr) *segment = (const void *)(module->file + head->e_phoff);

    if (!symbols_has(module, head->e_phoff, head->e_phnum * sizeof(*segment))) {
        return;
    }
    module->bias = head->e_type == ET_EXEC ? 0 : module->base;
    for (unsigned i = 0; i < head->e_phnum; i++, segment++) {
        if (segment->p_type == PT_LOAD) {
            module->end =
                haki_max(module->end,
                         module->bias + segment->p_vaddr + segment->p_memsz);
        } else if (segment->p_type == PT_NOTE) {
            symbols_read_note(module, segment->p_offset, segment->p_filesz);
        }
    }
}

/* Its symbols: all of them, or if they were stripped those for the linker. */
static void symbols_read_sections(struct hak_module *module,
                                  const ElfW(Ehdr) * head)
{
    const ElfW(Shdr) *all = (const void *)(module->file + head->e_shoff);

    if (head->e_shentsize != sizeof(*all) ||
        !symbols_has(module, head->e_shoff, head->e_shnum * sizeof(*all))) {
        return;
    }
    for (unsigned i = 0; i < head->e_shnum; i++) {
        const ElfW(Shdr) *section = &all[i], *strings;

        if ((section->sh_type != SHT_SYMTAB &&
             (section->sh_type != SHT_DYNSYM || module->symbols != NULL)) ||
            section->sh_link >= head->e_shnum) {
            continue;
        }
        strings = &all[section->sh_link];
        if (symbols_has(module, section->sh_offset, section->sh_size) &&
            symbols_has(module, strings->sh_offset, strings->sh_size) &&
            strings->sh_size > 0) {
            module->symbols = module->file + section->sh_offset;
            module->count = section->sh_size / sizeof(ElfW(Sym));
            module->strings = module->file + strings->sh_offset;
            module->strings_size = strings->sh_size;
        }
    }
}

/* ---- objects --------------------------------------------------------------------- */

/* What object pc is in, by which way there is; false: in none. */
static bool symbols_where(const struct hak_symbols *symbols, uintptr_t pc,
                          Dl_info *info)
{
    symbols_finder *finder = atomic_load(&symbols_find_object);
    struct symbols_object object;

    memset(info, 0, sizeof(*info));
    if (!symbols->safely) {
        return dladdr != NULL && dladdr((void *)pc, info) != 0 &&
               info->dli_fname != NULL;
    }
    memset(&object, 0, sizeof(object));
    if (finder == NULL || finder((void *)pc, &object) != 0) {
        return false;
    }
    info->dli_fbase = object.start;
    info->dli_fname = object.map->l_name;
    return true;
}

#define SYMBOLS_PROGRAM "/proc/self/exe"

static bool symbols_is_program(const struct hak_symbols *symbols,
                               const Dl_info *info)
{
    Dl_info program;

    if (symbols->safely) {
        return info->dli_fname[0] == '\0'; /* the loader's list has it so */
    }
    return dladdr((void *)getauxval(AT_PHDR), &program) != 0 &&
           program.dli_fbase == info->dli_fbase;
}

/* The name that the loader has of the program is argv[0]: it may have been relative,
 * or be a title by now. */
static const char *symbols_program(struct hak_symbols *symbols,
                                   const char *otherwise)
{
    ssize_t n = readlink(SYMBOLS_PROGRAM, symbols->program,
                         sizeof(symbols->program) - 1);

    if (n <= 0) {
        return otherwise;
    }
    symbols->program[n] = '\0';
    return symbols->program;
}

static struct hak_module *symbols_module(struct hak_symbols *symbols,
                                         const Dl_info *info)
{
    uintptr_t base = (uintptr_t)info->dli_fbase;
    const ElfW(Ehdr) * head;
    struct hak_module *module;
    bool program;

    for (size_t i = 0; i < symbols->modules; i++) {
        if (symbols->module[i].base == base) {
            return &symbols->module[i];
        }
    }
    if (symbols->modules == HAK_MODULES_MOST) {
        return NULL;
    }
    module = &symbols->module[symbols->modules++];
    memset(module, 0, sizeof(*module));
    module->base = module->end = module->bias = base;
    program = symbols_is_program(symbols, info);
    module->path =
        program ? symbols_program(symbols, info->dli_fname) : info->dli_fname;
    module->file = haki_os_map_file(program ? SYMBOLS_PROGRAM : info->dli_fname,
                                    &module->bytes);
    head = module->file != NULL ? symbols_head(module) : NULL;
    if (head != NULL) {
        symbols_read_segments(module, head);
        symbols_read_sections(module, head);
    }
    return module;
}

/* ---- functions of an object ------------------------------------------------------- */

static int symbols_by_address(const void *a, const void *b)
{
    const struct hak_function *one = a, *other = b;

    return one->start != other->start
               ? (one->start > other->start) - (one->start < other->start)
               : (one->symbol > other->symbol) - (one->symbol < other->symbol);
}

static bool symbols_is_function(const struct hak_module *module,
                                const ElfW(Sym) * symbol)
{
    return ELF64_ST_TYPE(symbol->st_info) == STT_FUNC &&
           symbol->st_shndx != SHN_UNDEF &&
           symbol->st_name < module->strings_size;
}

/* Sorts them, once. */
static void symbols_sort(struct hak_module *module)
{
    const ElfW(Sym) *all = module->symbols;
    uint64_t reach = 0;
    size_t n = 0;

    module->function_bytes =
        haki_round_up(module->count * sizeof(*module->function), HAK_PAGE);
    module->function = haki_os_map(module->function_bytes);
    if (module->function == NULL) {
        return;
    }
    for (uint32_t i = 0; i < module->count; i++) {
        if (symbols_is_function(module, &all[i])) {
            /* One without a size is where it begins. */
            uint64_t size = all[i].st_size != 0 ? all[i].st_size : 1;

            module->function[n].start = all[i].st_value;
            module->function[n].end = all[i].st_value + size;
            module->function[n++].symbol = i;
        }
    }
    qsort(module->function, n, sizeof(*module->function), symbols_by_address);
    for (size_t i = 0; i < n; i++) {
        reach = haki_max(reach, module->function[i].end);
        module->function[i].reach = reach;
    }
    module->functions = n;
}

/* The innermost of those that have this address, of aliases the first in the object's
 * table; NULL: none has it. */
static const struct hak_function *symbols_at(const struct hak_module *module,
                                             uint64_t value)
{
    const struct hak_function *all = module->function, *found = NULL;
    size_t low = 0, high = module->functions;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (all[middle].start <= value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (size_t i = low; i-- > 0 && all[i].reach > value;) {
        if (found != NULL && all[i].start != found->start) {
            break;
        }
        if (all[i].end > value) {
            found = &all[i];
        }
    }
    return found;
}

/* The same without memory, for a signal handler: the first that has it. */
static const ElfW(Sym) *
    symbols_scan(const struct hak_module *module, uint64_t value)
{
    const ElfW(Sym) *all = module->symbols;

    for (size_t i = 0; i < module->count; i++) {
        uint64_t size = all[i].st_size != 0 ? all[i].st_size : 1;

        if (symbols_is_function(module, &all[i]) &&
            value - all[i].st_value < size) {
            return &all[i];
        }
    }
    return NULL;
}

/* The function at pc by the object's own table, or NULL. */
static const char *symbols_search(const struct hak_symbols *symbols,
                                  struct hak_module *module, uintptr_t pc,
                                  uintptr_t *at)
{
    const ElfW(Sym) *all = module->symbols, *symbol;
    const struct hak_function *found;

    if (symbols->safely) {
        symbol = symbols_scan(module, pc - module->bias);
    } else {
        if (module->function == NULL && module->count != 0) {
            symbols_sort(module);
        }
        found = symbols_at(module, pc - module->bias);
        symbol = found != NULL ? &all[found->symbol] : NULL;
    }
    if (symbol == NULL) {
        return NULL;
    }
    *at = module->bias + symbol->st_value;
    return module->strings + symbol->st_name;
}

/* ---- from address to name ---------------------------------------------------------- */

/* Notes the object that this code is in, if its name says that it is HAKMEM's. */
static void symbols_note_own(struct hak_symbols *symbols)
{
    Dl_info info;

    symbols->own = 0;
    if (symbols_where(symbols, (uintptr_t)haki_symbols_find, &info) &&
        strstr(info.dli_fname, "hakmem") != NULL) {
        symbols->own = (uintptr_t)info.dli_fbase;
    }
}

void haki_symbols_begin(struct hak_symbols *symbols)
{
    Dl_info info;

    if (dladdr != NULL && dladdr((void *)getauxval(AT_PHDR), &info) != 0) {
        symbols_module(symbols, &info);
    }
    symbols_note_own(symbols);
}

void haki_symbols_prepare(void)
{
    if (atomic_load(&symbols_find_object) == NULL && dlsym != NULL) {
        atomic_store(&symbols_find_object,
                     (symbols_finder *)(uintptr_t)dlsym(RTLD_DEFAULT,
                                                        "_dl_find_object"));
    }
}

void haki_symbols_begin_safely(struct hak_symbols *symbols)
{
    symbols->modules = 0;
    symbols->safely = true;
    symbols_note_own(symbols);
}

/* The one that is known to have that address, or NULL. */
static struct hak_module *symbols_known(struct hak_symbols *symbols,
                                        uintptr_t pc)
{
    for (size_t i = 0; i < symbols->modules; i++) {
        struct hak_module *module = &symbols->module[i];

        if (pc >= module->base && pc < module->end) {
            return module;
        }
    }
    return NULL;
}

void haki_symbols_find(struct hak_symbols *symbols, uintptr_t pc,
                       struct hak_symbol *symbol)
{
    struct hak_module *module = symbols_known(symbols, pc);
    Dl_info info;

    *symbol = (struct hak_symbol){NULL, NULL, pc, false};
    /* The dynamic linker looks through all of an object's names: so it is asked for an
     * object once, and for names where its file has none. */
    if (module == NULL || module->count == 0) {
        if (!symbols_where(symbols, pc, &info)) {
            return;
        }
        module = symbols_module(symbols, &info);
        if (info.dli_sname != NULL) {
            symbol->name = info.dli_sname;
            symbol->at = (uintptr_t)info.dli_saddr;
        }
        symbol->ours = (uintptr_t)info.dli_fbase == symbols->own;
    }
    symbol->module = module;
    if (module != NULL && module->count != 0) {
        symbol->ours = module->base == symbols->own;
        symbol->name = symbols_search(symbols, module, pc, &symbol->at);
    }
}

void haki_symbols_drop(struct hak_symbols *symbols)
{
    for (size_t i = 0; i < symbols->modules; i++) {
        struct hak_module *module = &symbols->module[i];

        if (module->file != NULL) {
            haki_os_unmap((void *)(uintptr_t)module->file, module->bytes);
        }
        if (module->function != NULL) {
            haki_os_unmap(module->function, module->function_bytes);
        }
    }
    symbols->modules = 0;
}
