/*
 * loaded.c - what is loaded, and what may be done with its slots; changes
 * nothing.
 */
#include "loaded.h"

#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

/* ---- objects ---------------------------------------------------------------- */

static const char *file_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* Whether `name` is the file's whole name, or the part before its ".so". */
static bool is_stem(const char *file, const char *name)
{
    size_t length = strlen(name);
    const char *rest = file + length;

    return strncmp(file, name, length) == 0 &&
           (*rest == '\0' ||
            (strncmp(rest, ".so", 3) == 0 && (rest[3] == '.' || rest[3] == 0)));
}

static bool is_named(const char *path, const char *name)
{
    const char *file = file_of(path);

    if (*name == '\0') {
        return false;
    }
    /* This also excludes Perl's module of that name, nginx.so. */
    if (*path == '\0' || strcmp(name, "nginx") == 0) {
        return *path == '\0' && strcmp(name, "nginx") == 0;
    }
    return is_stem(file, name) ||
           (strncmp(file, "lib", 3) == 0 && is_stem(file + 3, name));
}

bool hak_ngx_is_libc(const struct hak_ngx_elf *elf)
{
    return hak_ngx_elf_has(elf, (uintptr_t)gnu_get_libc_version, false);
}

/*
 * Whether it must not be patched: libc, its dynamic linker, another allocator,
 * ourselves.
 */
static bool is_taboo(const struct hak_ngx_elf *elf)
{
    const char *file = file_of(elf->file);

    return hak_ngx_elf_has(elf, (uintptr_t)hak_ngx_find, false) ||
           hak_ngx_is_libc(elf) || elf->base == getauxval(AT_BASE) ||
           is_stem(file, "libc") || is_stem(file, "libhakmem") ||
           hak_ngx_elf_defines(elf, "malloc") ||
           hak_ngx_elf_defines(elf, "free");
}

const char *hak_ngx_printable(const struct hak_ngx_elf *elf)
{
    return *elf->file != '\0' ? file_of(elf->file) : "the program";
}

static hak_ngx_object *object_of(const struct hak_ngx_walk *walk,
                                 const char *path)
{
    for (size_t i = 0; i < walk->n; i++) {
        if (is_named(path, walk->objects[i].name)) {
            return &walk->objects[i];
        }
    }
    return NULL;
}

static struct hak_ngx_loaded *new_loaded(struct hak_ngx_walk *walk)
{
    if (walk->count == walk->room) {
        size_t room = walk->room != 0 ? 2 * walk->room : 64;
        struct hak_ngx_loaded *all = realloc(walk->all, room * sizeof(*all));

        if (all == NULL) {
            walk->failed = true;
            return NULL;
        }
        walk->all = all;
        walk->room = room;
    }
    return &walk->all[walk->count++];
}

static int collect_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct hak_ngx_walk *walk = arg;
    struct hak_ngx_elf elf;
    struct hak_ngx_loaded *one;
    const char *why;

    (void)size;
    if (!hak_ngx_elf_open(&elf, info, &why) && why == NULL) {
        return 0;
    }
    one = new_loaded(walk);
    if (one == NULL) {
        return 1;
    }
    *one = (struct hak_ngx_loaded){.elf = elf};
    one->is_known = walk->is_known != NULL && walk->is_known(&elf);
    if (one->is_known) {
        return 0;
    }
    one->object = object_of(walk, elf.file);
    one->taboo = is_taboo(&elf);
    if (one->taboo) {
        one->object = NULL;
    } else if (why != NULL) {
        snprintf(one->unpatched, sizeof(one->unpatched), "%s", why);
    }
    return 0;
}

void hak_ngx_collect(struct hak_ngx_walk *walk)
{
    walk->definers = calloc(hak_ngx_names_count, sizeof(*walk->definers));
    walk->failed = walk->definers == NULL;
    if (!walk->failed) {
        dl_iterate_phdr(collect_one, walk);
    }
}

void hak_ngx_forget(struct hak_ngx_walk *walk)
{
    free(walk->definers);
    free(walk->all);
}

/*
 * ---- the contents of a slot
 * ---------------------------------------------------
 */

/* The object whose definition of a name others find; NULL: nobody has one. */
static const struct hak_ngx_elf *definer_of(struct hak_ngx_walk *walk,
                                            const hak_ngx_name *name)
{
    struct hak_ngx_definer *definer = &walk->definers[name - hak_ngx_names];

    for (size_t i = 0; i < walk->count && !definer->known; i++) {
        if (hak_ngx_elf_defines(&walk->all[i].elf, name->name)) {
            *definer = (struct hak_ngx_definer){true, &walk->all[i].elf};
        }
    }
    definer->known = true;
    return definer->elf;
}

/*
 * Whether a value is the program's own address for a name, which a program that
 * is not position independent gives to all objects.
 */
static bool is_programs(const struct hak_ngx_walk *walk,
                        const hak_ngx_name *name, uintptr_t value)
{
    const struct hak_ngx_elf *program = &walk->all[0].elf;
    struct hak_ngx_reloc reloc;

    if (!hak_ngx_elf_has(program, value, false)) {
        return false;
    }
    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < program->tables[table].count; i++) {
            if (hak_ngx_elf_reloc(program, table, i, &reloc) &&
                reloc.stands == value && strcmp(reloc.name, name->name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/*
 * Whether a slot's value is one that the dynamic linker sets: the function; if
 * it is not bound yet, a place in the object itself; or the program's address
 * of it. Anything else was set by the object, or belongs to another allocator
 * that the object is bound to, and is left alone.
 */
static bool leads_there(struct hak_ngx_walk *walk,
                        const struct hak_ngx_loaded *one,
                        const struct hak_ngx_reloc *reloc,
                        const hak_ngx_name *name, uintptr_t value)
{
    const struct hak_ngx_elf *definer = definer_of(walk, name);

    if (reloc->is_lazy || !reloc->imported) {
        if (hak_ngx_elf_has(&one->elf, value, false)) {
            return true;
        }
    }
    return definer != NULL && (hak_ngx_elf_has(definer, value, false) ||
                               is_programs(walk, name, value));
}

/*
 * One object's operator delete may free what another's operator new allocated.
 * An object that defines delete must be served, or be the C++ library, which
 * frees through its slot for free.
 */
static bool may_replace_new(struct hak_ngx_walk *walk, const hak_ngx_name *name,
                            char *why, size_t len)
{
    const struct hak_ngx_elf *definer = definer_of(walk, name);
    const char *file = definer != NULL ? file_of(definer->file) : "";

    if (definer == NULL || is_stem(file, "libstdc++") ||
        is_stem(file, "libc++") || is_stem(file, "libc++abi") ||
        object_of(walk, definer->file) != NULL) {
        return true;
    }
    snprintf(why, len, "its operator new is %s: %s",
             is_taboo(definer) ? "another allocator's"
                               : "of an object that is to be given as well",
             hak_ngx_printable(definer));
    return false;
}

enum hak_ngx_verdict hak_ngx_judge(struct hak_ngx_walk *walk,
                                   const struct hak_ngx_loaded *one,
                                   const struct hak_ngx_reloc *reloc,
                                   const hak_ngx_name *name, char *why,
                                   size_t len)
{
    hak_ngx_function **at = (hak_ngx_function **)reloc->at;

    if (reloc->kind == HAK_NGX_NO_ADDRESS) {
        return HAK_NGX_LEAVE;
    }
    if (reloc->kind == HAK_NGX_UNKNOWN) {
        snprintf(why, len, "a relocation of an unknown kind: %u, for %s",
                 reloc->type, name->name);
        return HAK_NGX_FAULT;
    }
    if (!hak_ngx_elf_has(&one->elf, reloc->at, true) ||
        reloc->at % sizeof(*at) != 0) {
        snprintf(why, len, "a slot outside its data, for %s", name->name);
        return HAK_NGX_FAULT;
    }
    if (*at == NULL) { /* a weak symbol that nobody defines */
        return HAK_NGX_LEAVE;
    }
    if (*at != name->ours && *at != name->any &&
        !leads_there(walk, one, reloc, name, (uintptr_t)*at)) {
        return HAK_NGX_LEAVE;
    }
    if (name->any == NULL && reloc->stands != 0) {
        snprintf(why, len,
                 "other objects may call through its own address of %s",
                 name->name);
        return HAK_NGX_FAULT;
    }
    return strncmp(name->name, "_Z", 2) != 0 ||
                   may_replace_new(walk, name, why, len)
               ? HAK_NGX_TAKE
               : HAK_NGX_FAULT;
}

bool hak_ngx_concerns_us(const struct hak_ngx_reloc *reloc,
                         const hak_ngx_name *name)
{
    uintptr_t value;

    if (reloc->imported) {
        return true;
    }
    if (reloc->kind != HAK_NGX_SLOT || strncmp(reloc->name, "_Z", 2) != 0) {
        return false;
    }
    value = *(uintptr_t *)reloc->at;
    return value == reloc->own || value == (uintptr_t)name->ours;
}

/* ---- what is loaded -------------------------------------------------------------------- */

struct search {
    const char *name;
    hak_ngx_presence presence;
};

static int find_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct search *search = arg;
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    if (!is_named(info->dlpi_name, search->name) ||
        !hak_ngx_elf_open(&elf, info, &why)) {
        return 0;
    }
    search->presence = is_taboo(&elf) ? HAK_NGX_NEVER : HAK_NGX_LOADED;
    return search->presence == HAK_NGX_LOADED;
}

hak_ngx_presence hak_ngx_find(const char *name)
{
    struct search search = {.name = name, .presence = HAK_NGX_ABSENT};

    dl_iterate_phdr(find_one, &search);
    return search.presence;
}
