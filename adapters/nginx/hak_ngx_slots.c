/*
 * hak_ngx_slots.c - points the slots of chosen objects at our functions.
 *
 * In two steps. The plan looks at every relocation of every chosen object and
 * changes nothing; one it does not know, of a name of ours, ends it. Then the
 * slots are written, one word each, and read-only pages are opened for it; a
 * page that won't open has all of them written back.
 *
 * Invariant: `made` holds the slots that are ours, and their objects; those of
 * objects that have been unloaded go when slots are next looked for.
 */
#include "hak_ngx.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hak_ngx_elf.h"
#include "hak_ngx_names.h"

struct slot {
    hak_ngx_function **at;
    hak_ngx_function *was;
    hak_ngx_function *ours;
    bool relro; /* its page is read-only */
    /* Whether the object is still there is told by these. */
    uintptr_t base, dynamic;
};

struct slots {
    struct slot *at;
    size_t count, room;
};

static struct slots made;
static unsigned long long loads_seen;

/* What walks through the loaded objects. */
struct walk {
    hak_ngx_object *objects;
    size_t n;
    struct slots plan;
    char *why; /* empty: nothing is wrong */
    size_t len;
};

/* ---- names ----------------------------------------------------------------- */

static const char *file_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* Whether `name` is the file's whole name, or what stands before its ".so". */
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
    if (*path == '\0') {
        return strcmp(name, "nginx") == 0;
    }
    return is_stem(file, name) ||
           (strncmp(file, "lib", 3) == 0 && is_stem(file + 3, name));
}

/* libc, its dynamic linker, ourselves, libhakmem.so: never to be patched. */
static bool is_taboo(const struct hak_ngx_elf *elf)
{
    const char *file = file_of(elf->file);

    return hak_ngx_elf_has(elf, (uintptr_t)hak_ngx_find, false) ||
           hak_ngx_elf_has(elf, (uintptr_t)gnu_get_libc_version, false) ||
           elf->base == getauxval(AT_BASE) || is_stem(file, "libc") ||
           is_stem(file, "libhakmem");
}

static hak_ngx_object *object_of(const struct walk *walk, const char *path)
{
    for (size_t i = 0; i < walk->n; i++) {
        if (is_named(path, walk->objects[i].name)) {
            return &walk->objects[i];
        }
    }
    return NULL;
}

/* ---- lists of slots --------------------------------------------------------- */

static bool add(struct slots *slots, const struct slot *slot)
{
    if (slots->count == slots->room) {
        size_t room = slots->room != 0 ? 2 * slots->room : 32;
        struct slot *at = realloc(slots->at, room * sizeof(*at));

        if (at == NULL) {
            return false;
        }
        slots->at = at;
        slots->room = room;
    }
    slots->at[slots->count++] = *slot;
    return true;
}

static void forget(struct slots *slots)
{
    free(slots->at);
    *slots = (struct slots){0};
}

/* ---- the plan --------------------------------------------------------------- */

static const char *printable(const char *path)
{
    return *path != '\0' ? path : "the program";
}

static bool refuse(struct walk *walk, const char *path, const char *text,
                   const char *detail)
{
    snprintf(walk->why, walk->len, "%s: %s%s", printable(path), text, detail);
    return false;
}

/*
 * operator new of one object and operator delete of another work on the same
 * blocks, inside the C++ library as well: it must be patched, too.
 */
static bool check_operator(struct walk *walk, const struct hak_ngx_elf *elf,
                           const char *name, hak_ngx_function *value)
{
    Dl_info found;

    if (hak_ngx_elf_has(elf, (uintptr_t)value, false)) { /* not yet bound */
        value = __extension__(hak_ngx_function *) dlsym(RTLD_DEFAULT, name);
    }
    if (value == NULL || dladdr(__extension__(void *) value, &found) == 0 ||
        object_of(walk, found.dli_fname) != NULL) {
        return true;
    }
    return refuse(walk, elf->file,
                  "its operator new is of an object that is to be given as "
                  "well: ",
                  file_of(found.dli_fname));
}

static bool plan_slot(struct walk *walk, const struct hak_ngx_elf *elf,
                      const struct hak_ngx_reloc *reloc,
                      const hak_ngx_name *name, hak_ngx_object *object)
{
    hak_ngx_function **at = (hak_ngx_function **)reloc->at;
    struct slot slot = {.at = at, .base = elf->base, .dynamic = elf->dynamic};

    if (name->ours == NULL) {
        return refuse(walk, elf->file, "libc would resize its blocks: it uses ",
                      name->name);
    }
    if (!reloc->known) {
        char kind[64];

        snprintf(kind, sizeof(kind), "%u, for %s", reloc->type, name->name);
        return refuse(walk, elf->file,
                      "a relocation of an unknown kind: ", kind);
    }
    if (reloc->stands) {
        return refuse(walk, elf->file,
                      "other objects may call through its own address of ",
                      name->name);
    }
    if (!hak_ngx_elf_has(elf, reloc->at, true) ||
        reloc->at % sizeof(*at) != 0) {
        return refuse(walk, elf->file,
                      "a slot lies outside its data: ", name->name);
    }
    if (*at == name->ours) {
        object->slots++;
        return true;
    }
    if (*at == NULL) { /* a weak symbol that nobody has */
        return true;
    }
    if (strncmp(name->name, "_Z", 2) == 0 &&
        !check_operator(walk, elf, name->name, *at)) {
        return false;
    }
    slot.was = *at;
    slot.ours = name->ours;
    slot.relro =
        reloc->at - elf->relro_start < elf->relro_end - elf->relro_start;
    object->slots++;
    return add(&walk->plan, &slot) ||
           refuse(walk, elf->file, "out of memory", "");
}

/*
 * Whether a relocation of a name of ours is of interest: an import, or in the
 * C++ library a call of its own operators, which the program may replace and
 * did not.
 */
static bool concerns_us(const struct hak_ngx_reloc *reloc,
                        const hak_ngx_name *name)
{
    uintptr_t value;

    if (reloc->imported) {
        return true;
    }
    if (!reloc->known || strncmp(reloc->name, "_Z", 2) != 0) {
        return false;
    }
    value = *(uintptr_t *)reloc->at;
    return value == reloc->own || value == (uintptr_t)name->ours;
}

/*
 * nginx's modules call ngx_alloc, which is nginx's, and ngx_free, which is the
 * word free: so blocks of a patched nginx end in the slots of every module.
 * Who is not to be served has these alone: they pass on what is not ours.
 */
static const hak_ngx_name guest_names[] = {
    {"free", (hak_ngx_function *)hak_ngx_free},
    {"realloc", (hak_ngx_function *)hak_ngx_guest_realloc},
    {"malloc_usable_size", (hak_ngx_function *)hak_ngx_malloc_usable_size},
};

static hak_ngx_object guests;

static const hak_ngx_name *name_for(const hak_ngx_object *object,
                                    const char *name)
{
    if (object != &guests) {
        return hak_ngx_name_find(name);
    }
    for (size_t i = 0; i < sizeof(guest_names) / sizeof(guest_names[0]); i++) {
        if (strcmp(guest_names[i].name, name) == 0) {
            return &guest_names[i];
        }
    }
    return NULL;
}

/* Whether the object is a module of nginx's: it imports from the program. */
static bool is_module(const struct hak_ngx_elf *elf)
{
    struct hak_ngx_reloc reloc;

    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < elf->tables[table].count; i++) {
            if (hak_ngx_elf_reloc(elf, table, i, &reloc) && reloc.imported &&
                strncmp(reloc.name, "ngx_", 4) == 0) {
                return true;
            }
        }
    }
    return false;
}

static bool plan_object(struct walk *walk, const struct hak_ngx_elf *elf,
                        hak_ngx_object *object)
{
    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < elf->tables[table].count; i++) {
            const hak_ngx_name *name;
            struct hak_ngx_reloc reloc;

            if (!hak_ngx_elf_reloc(elf, table, i, &reloc)) {
                continue;
            }
            name = name_for(object, reloc.name);
            if (name != NULL && concerns_us(&reloc, name) &&
                !plan_slot(walk, elf, &reloc, name, object)) {
                return false;
            }
        }
    }
    return true;
}

static int plan_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct walk *walk = arg;
    hak_ngx_object *object = object_of(walk, info->dlpi_name);
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    if (!hak_ngx_elf_open(&elf, info, &why)) {
        return object != NULL && why != NULL &&
               !refuse(walk, info->dlpi_name, why, "");
    }
    if (object == NULL && !is_module(&elf)) {
        return 0;
    }
    object = object != NULL ? object : &guests;
    return !is_taboo(&elf) && !plan_object(walk, &elf, object);
}

/* False: walk->why. The plan is to be forgotten in either case. */
static bool make_plan(struct walk *walk)
{
    for (size_t i = 0; i < walk->n; i++) {
        walk->objects[i].slots = 0;
    }
    guests.slots = 0;
    return dl_iterate_phdr(plan_one, walk) == 0;
}

/* ---- writing ----------------------------------------------------------------- */

static bool write_slot(const struct slot *slot, hak_ngx_function *value)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *start = (void *)((uintptr_t)slot->at & ~(page - 1));

    if (slot->relro && mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    /* Other threads may be calling through it. */
    __atomic_store_n(slot->at, value, __ATOMIC_RELEASE);
    if (slot->relro) {
        mprotect(start, page, PROT_READ);
    }
    return true;
}

/* Writes back the first n of them that are ours. */
static void write_back(const struct slots *slots, size_t n)
{
    while (n-- > 0) {
        const struct slot *slot = &slots->at[n];

        if (*slot->at == slot->ours) {
            write_slot(slot, slot->was);
        }
    }
}

static bool write_all(struct walk *walk)
{
    for (size_t i = 0; i < walk->plan.count; i++) {
        const struct slot *slot = &walk->plan.at[i];

        if (!write_slot(slot, slot->ours) || !add(&made, slot)) {
            snprintf(walk->why, walk->len, "a slot can't be written: %s",
                     strerror(errno));
            write_back(&walk->plan, i + 1);
            made.count -= i;
            return false;
        }
    }
    return true;
}

/* ---- objects that are gone --------------------------------------------------- */

/* Marks the slots of an object that is there: base ^ 1 is no base. */
static int mark_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    (void)arg;
    if (hak_ngx_elf_open(&elf, info, &why)) {
        for (size_t i = 0; i < made.count; i++) {
            struct slot *slot = &made.at[i];

            if (slot->base == elf.base && slot->dynamic == elf.dynamic &&
                hak_ngx_elf_has(&elf, (uintptr_t)slot->at, true) &&
                *slot->at == slot->ours) {
                slot->base ^= 1;
            }
        }
    }
    return 0;
}

/* Leaves in `made` what is still loaded and ours. */
static void drop_gone(void)
{
    size_t kept = 0;

    dl_iterate_phdr(mark_one, NULL);
    for (size_t i = 0; i < made.count; i++) {
        if ((made.at[i].base & 1) != 0) {
            made.at[i].base ^= 1;
            made.at[kept++] = made.at[i];
        }
    }
    made.count = kept;
}

unsigned hak_ngx_guest_slots(void)
{
    return guests.slots;
}

/* ---- the interface ----------------------------------------------------------- */

int hak_ngx_patch(hak_ngx_object *objects, size_t n, char *why, size_t len)
{
    struct walk walk = {.objects = objects, .n = n, .why = why, .len = len};
    bool done;

    if (len > 0) {
        *why = '\0';
    }
    drop_gone();
    done = make_plan(&walk) && write_all(&walk);
    forget(&walk.plan);
    return done ? 0 : -1;
}

int hak_ngx_check(const hak_ngx_object *objects, size_t n, char *why,
                  size_t len)
{
    hak_ngx_object *copies = calloc(n != 0 ? n : 1, sizeof(*copies));
    struct walk walk = {.objects = copies, .n = n, .why = why, .len = len};
    bool possible;

    if (copies == NULL) {
        snprintf(why, len, "out of memory");
        return -1;
    }
    memcpy(copies, objects, n * sizeof(*copies));
    possible = make_plan(&walk);
    forget(&walk.plan);
    free(copies);
    return possible ? 0 : -1;
}

void hak_ngx_unpatch(void)
{
    drop_gone();
    write_back(&made, made.count);
    forget(&made);
}

/* ---- what is loaded ----------------------------------------------------------- */

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

static int count_loads(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    *(unsigned long long *)arg = info->dlpi_adds;
    return 1;
}

bool hak_ngx_loaded_since(void)
{
    unsigned long long loads = 0;
    bool since;

    dl_iterate_phdr(count_loads, &loads);
    since = loads != loads_seen;
    loads_seen = loads;
    return since;
}
