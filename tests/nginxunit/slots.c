/*
 * slots.c - tests of how objects are made to call us: which slots are written,
 * what is refused, and that nothing has changed after a refusal.
 */
#include <link.h>
#include <sys/syscall.h>

#include "objects.h"

TestSuite(ngx_slots, .timeout = 300);

/* ---- what is tried on them --------------------------------------------------- */

/* Pages that it is refused for. */
static uintptr_t closed_from, closed_to;
static unsigned refusals, grants; /* so many are let through first */

/* The adapter's and the core's calls come here. */
int mprotect(void *address, size_t size, int protection)
{
    if ((uintptr_t)address - closed_from < closed_to - closed_from &&
        grants-- == 0) {
        grants = 0;
        refusals++;
        errno = EACCES;
        return -1;
    }
    return (int)syscall(SYS_mprotect, address, size, protection);
}

/* Whether the object's calls come to us; all of them do, or none. */
static bool is_served(const struct object *object)
{
    void *p = object->malloc(100);
    char *s = object->strdup("a string");
    void *q = object->pointer()(200);
    bool served = hak_owns(p);

    cr_assert_eq(hak_owns(s), served);
    cr_assert_eq(hak_owns(q), served);
    cr_assert_str_eq(s, "a string");
    p = object->realloc(p, 300);
    cr_assert_eq(hak_owns(p), served);
    object->free(p);
    object->free(q);
    object->free(s);
    return served;
}

/* The lines of /proc/self/maps that name a file like this. */
static void read_maps(const char *name, char *text, size_t room)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    size_t used = 0;
    char line[600];

    cr_assert_not_null(maps);
    *text = '\0';
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (strstr(line, name) != NULL) {
            used += (size_t)snprintf(text + used, room - used, "%s", line);
            cr_assert_lt(used, room);
        }
    }
    fclose(maps);
    cr_assert_gt(used, 0);
}

/* ---- writing, and writing back ------------------------------------------------- */

/* realloc, free, strdup: JUMP_SLOT; malloc, whose address is taken: GLOB_DAT. */
#define SLOTS 4

static void check_cycle(const char *name, int how)
{
    struct object object = load(name, how);
    hak_ngx_object objects[] = {{.name = name}};
    char before[4000], after[4000];

    read_maps(name, before, sizeof(before));
    patch(objects, 1);
    cr_assert_eq(objects[0].slots, SLOTS, "%u", objects[0].slots);
    cr_assert(is_served(&object));
    read_maps(name, after, sizeof(after));
    cr_assert_str_eq(after, before);
    hak_ngx_unpatch();
    cr_assert_not(is_served(&object));
    read_maps(name, after, sizeof(after));
    cr_assert_str_eq(after, before);
}

Test(ngx_slots, read_only_slots_are_written_and_read_only_again)
{
    char maps[4000];

    check_cycle("ngxnow", RTLD_NOW);
    read_maps("ngxnow", maps, sizeof(maps));
    cr_assert_not_null(strstr(maps, "r--p"));
}

Test(ngx_slots, slots_that_are_not_bound_yet)
{
    check_cycle("ngxlazy", RTLD_LAZY);
}

Test(ngx_slots, blocks_from_before)
{
    struct object object = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxnow"}};
    char *before = object.strdup("before"), *ours;

    patch(objects, 1);
    before = object.realloc(before, 2000);
    cr_assert_str_eq(before, "before");
    cr_assert_not(hak_owns(before));
    object.free(before);
    ours = object.strdup("ours");
    ours = object.realloc(ours, 5000);
    cr_assert_str_eq(ours, "ours");
    object.free(ours);
}

/* Whether the object has changed one is looked at, too. */
Test(ngx_slots, pointers_in_the_data)
{
    struct object object = load("ngxdata", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxdata"}};
    void *(**allocate)(size_t) = function(object.handle, "object_data");
    void (**give_back)(void *) = function(object.handle, "object_data_free");
    void (**changed)(void *) = function(object.handle, "object_changed");
    void (*change)(void), (*kept)(void *);

    __extension__({ change = function(object.handle, "object_change"); });
    change();
    kept = *changed;
    patch(NULL, 0);
    (*give_back)(hak_ngx_malloc(10));
    cr_assert_not(is_served(&object));
    cr_assert_eq(*changed, kept);
    patch(objects, 1);
    cr_assert_eq(objects[0].slots, SLOTS + 2);
    cr_assert(is_served(&object));
    cr_assert_eq(*changed, kept);
    (*give_back)((*allocate)(10));
    hak_ngx_unpatch();
    cr_assert_not(is_served(&object));
}

Test(ngx_slots, checking_changes_nothing)
{
    struct object object = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxnow"}};
    char why[200];

    cr_assert_eq(hak_ngx_check(objects, 1, why, sizeof(why)), 0);
    cr_assert_eq(objects[0].slots, 0);
    cr_assert_not(is_served(&object));
}

Test(ngx_slots, patching_twice_and_an_object_that_is_loaded_later)
{
    struct object first = load("ngxnow", RTLD_NOW), second;
    hak_ngx_object objects[] = {{.name = "ngxnow"}, {.name = "ngxlazy"}};

    cr_assert(hak_ngx_loaded_since());
    patch(objects, 2);
    cr_assert_not(hak_ngx_loaded_since());
    cr_assert_eq(objects[0].slots, SLOTS);
    cr_assert_eq(objects[1].slots, 0);
    second = load("ngxlazy", RTLD_LAZY);
    cr_assert(hak_ngx_loaded_since());
    cr_assert_not(is_served(&second));
    patch(objects, 2);
    cr_assert_eq(objects[0].slots, SLOTS);
    cr_assert_eq(objects[1].slots, SLOTS);
    cr_assert(is_served(&first));
    cr_assert(is_served(&second));
    hak_ngx_unpatch();
    cr_assert_not(is_served(&first));
    cr_assert_not(is_served(&second));
}

static int find_bounds(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t *bounds = arg;

    (void)size;
    if (strstr(info->dlpi_name, "libngxnow.so") == NULL) {
        return 0;
    }
    bounds[0] = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            bounds[1] = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
                        info->dlpi_phdr[i].p_memsz;
        }
    }
    return 1;
}

/* Where it was there is now something that must not be written to. */
Test(ngx_slots, an_object_that_is_gone_is_left_alone)
{
    struct object gone = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxnow"}, {.name = "ngxlazy"}};
    uintptr_t bounds[2] = {0};
    void *there;

    patch(objects, 2);
    cr_assert_eq(dl_iterate_phdr(find_bounds, bounds), 1);
    cr_assert_eq(dlclose(gone.handle), 0);
    there = mmap((void *)bounds[0], bounds[1] - bounds[0], PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    cr_assert_eq(there, (void *)bounds[0], "it was not unloaded");
    patch(objects, 2);
    hak_ngx_unpatch();
    cr_assert_eq(objects[0].slots, 0);
}

/* ---- names --------------------------------------------------------------------- */

Test(ngx_slots, names_of_objects)
{
    hak_ngx_presence as_it_is = HAK_NGX_LOADED;

    load("ngxnow", RTLD_NOW);
    cr_assert_eq(hak_ngx_find("libngxnow"), as_it_is);
    cr_assert_eq(hak_ngx_find("ngxnow"), as_it_is);
    cr_assert_eq(hak_ngx_find("libngxnow.so"), as_it_is);
    cr_assert_eq(hak_ngx_find("libngxno"), HAK_NGX_ABSENT);
    cr_assert_eq(hak_ngx_find("libngxnow.s"), HAK_NGX_ABSENT);
    cr_assert_eq(hak_ngx_find("libngxnow.so.1"), HAK_NGX_ABSENT);
    cr_assert_eq(hak_ngx_find(""), HAK_NGX_ABSENT);
}

/* Perl has an object nginx.so. */
Test(ngx_slots, nginx_is_the_program_alone)
{
    char path[400];
    hak_ngx_object objects[] = {{.name = "nginx"}, {.name = "nginx.so"}};
    struct object object;

    snprintf(path, sizeof(path), "%s", path_of("ngxnow"));
    strcpy(strrchr(path, '/'), "/nginx.so");
    cr_assert(symlink("libngxnow.so", path) == 0 || errno == EEXIST);
    object = opened(dlopen(path, RTLD_NOW));
    cr_assert_eq(hak_ngx_find("nginx"), HAK_NGX_NEVER); /* see below */
    patch(objects, 2);
    cr_assert_eq(objects[0].slots, 0);
    cr_assert_eq(objects[1].slots, SLOTS);
    cr_assert(is_served(&object));
}

/* The program has the adapter in it here. */
Test(ngx_slots, objects_that_never_are)
{
    hak_ngx_object objects[] = {
        {.name = "libc"}, {.name = "nginx"}, {.name = "ld-linux-x86-64"}};
    char *s;

    cr_assert_eq(hak_ngx_find("libc"), HAK_NGX_NEVER);
    cr_assert_eq(hak_ngx_find("c"), HAK_NGX_NEVER);
    cr_assert_eq(hak_ngx_find("nginx"), HAK_NGX_NEVER);
    patch(objects, 3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(objects[i].slots, 0);
    }
    s = realpath("/", NULL);
    cr_assert_not(hak_owns(s));
    free(s);
}

Test(ngx_slots, the_table_of_names_is_in_order)
{
    for (size_t i = 0; i < hak_ngx_names_count; i++) {
        const hak_ngx_name *name = &hak_ngx_names[i];

        cr_assert(i == 0 || strcmp(name[-1].name, name->name) < 0, "%s",
                  name->name);
        cr_assert_eq(hak_ngx_name_find(name->name), name);
    }
    cr_assert_null(hak_ngx_name_find("mallo"));
    cr_assert_null(hak_ngx_name_find("mallocs"));
    cr_assert_null(hak_ngx_name_find(""));
}

/* ---- what is refused -------------------------------------------------------------- */

/* It is not served; the others are. */
static void check_refused(const char *name, const char *text)
{
    struct object good = load("ngxnow", RTLD_NOW);
    struct object later = load("ngxlazy", RTLD_LAZY);
    hak_ngx_object objects[] = {
        {.name = "ngxnow"}, {.name = name}, {.name = "ngxlazy"}};
    struct object bad = load(name, RTLD_NOW);
    char why[300] = "";

    cr_assert_eq(hak_ngx_check(objects, 3, why, sizeof(why)), -1);
    cr_assert_not_null(strstr(why, name), "%s", why);
    cr_assert_not_null(strstr(why, text), "%s", why);
    cr_assert_not(is_served(&good));
    patch(objects, 3);
    cr_assert_not_null(strstr(objects[1].why, text), "%s", objects[1].why);
    cr_assert_eq(objects[1].slots, 0);
    cr_assert_str_eq(objects[0].why, "");
    cr_assert(is_served(&good));
    cr_assert(is_served(&later));
    cr_assert_not(is_served(&bad));
    cr_assert_eq(hak_ngx_patch(objects + 1, 1, why, sizeof(why)), -1);
    cr_assert_not_null(strstr(why, text), "%s", why);
}

Test(ngx_slots, a_word_in_the_code)
{
    check_refused("ngxtext", "outside its data, for malloc");
    cr_assert_eq(hak_ngx_unpatched(), 0);
}

Test(ngx_slots, frees_that_can_not_be_ours)
{
    char text[200];

    check_refused("ngxtextfree", "outside its data, for free");
    cr_assert_eq(hak_ngx_unpatched(), 1);
    hak_ngx_unpatched_text(text, sizeof(text));
    cr_assert_str_eq(text, "libngxtextfree.so: a slot outside its data, for "
                           "free");
    hak_ngx_unpatched_text(text, 10);
    cr_assert_str_eq(text, "libngxtex");
}

/* Blocks may pass from one to the other. */
Test(ngx_slots, what_is_linked_with_such_a_one_is_not_served)
{
    struct object friend = load("ngxfriend", RTLD_NOW);
    struct object good = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxfriend"}, {.name = "ngxnow"}};

    load("ngxtextfree", RTLD_NOW);
    patch(objects, 2);
    cr_assert_not(is_served(&friend));
    cr_assert(is_served(&good));
    cr_assert_not_null(strstr(objects[0].why, "past us by libngxtextfree.so"),
                       "%s", objects[0].why);
}

/* It has blocks of ours. */
Test(ngx_slots, what_is_served_stays_so)
{
    struct object friend = load("ngxfriend", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxfriend"}};

    patch(objects, 1);
    load("ngxtextfree", RTLD_NOW);
    patch(objects, 1);
    cr_assert_eq(hak_ngx_unpatched(), 1);
    cr_assert(is_served(&friend));
}

Test(ngx_slots, a_page_that_stays_closed)
{
    struct object good = load("ngxlazy", RTLD_LAZY);
    struct object bad = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxlazy"}, {.name = "ngxnow"}};
    uintptr_t bounds[2] = {0};

    cr_assert_eq(dl_iterate_phdr(find_bounds, bounds), 1);
    closed_from = bounds[0];
    closed_to = bounds[1];
    patch(objects, 2);
    cr_assert_gt(refusals, 0);
    cr_assert_not_null(strstr(objects[1].why, "Permission denied"), "%s",
                       objects[1].why);
    cr_assert_eq(hak_ngx_unpatched(), 1);
    cr_assert(is_served(&good));
    cr_assert_not(is_served(&bad));
    closed_to = closed_from;
    patch(objects, 2);
    cr_assert_eq(hak_ngx_unpatched(), 0);
    cr_assert(is_served(&good));
    cr_assert(is_served(&bad));
}

/* Its frees are ours by then, and some of the rest. */
Test(ngx_slots, a_page_that_closes_on_the_way)
{
    struct object bad = load("ngxnow", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxnow"}};
    uintptr_t bounds[2] = {0};
    char why[200];

    cr_assert_eq(dl_iterate_phdr(find_bounds, bounds), 1);
    closed_from = bounds[0];
    closed_to = bounds[1];
    /* Two frees, then a slot; each is opened and closed. */
    grants = 6;
    cr_assert_eq(hak_ngx_patch(objects, 1, why, sizeof(why)), -1);
    cr_assert_gt(refusals, 0);
    closed_to = closed_from;
    patch(objects, 1);
    cr_assert(is_served(&bad));
}

/* ---- what is left alone ------------------------------------------------------------ */

Test(ngx_slots, an_object_s_own_function_of_that_name)
{
    struct object object = load("ngxown", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxown"}};
    int (*own)(void *);

    __extension__({ own = function(object.handle, "object_own"); });
    patch(objects, 1);
    cr_assert_eq(objects[0].slots, SLOTS);
    cr_assert(is_served(&object));
    cr_assert_eq(own(NULL), 7);
}

/* ---- all other objects ------------------------------------------------------------- */

/* They free what served ones have from us, and allocate from libc. */
Test(ngx_slots, others_can_free_ours)
{
    struct object module = load("ngxlazy", RTLD_LAZY);
    hak_ngx_object objects[] = {{.name = "ngxlazy"}};
    char *ours = hak_ngx_strdup("ours"), *p;

    patch(NULL, 0);
    cr_assert_geq(hak_ngx_other_slots(), 2);
    p = module.realloc(ours, 3000);
    cr_assert_str_eq(p, "ours");
    module.free(p);
    module.free(hak_ngx_malloc(10));
    cr_assert_not(is_served(&module));
    p = module.realloc(NULL, 10);
    cr_assert_not(hak_owns(p));
    module.free(p);
    patch(objects, 1);
    cr_assert(is_served(&module));
}

/* ---- C++ ----------------------------------------------------------------------------- */

/* The C++ library's own new and delete go by its slots. */
Test(ngx_slots, operator_new)
{
    struct object object = load("ngxcxx", RTLD_NOW);
    hak_ngx_object objects[] = {{.name = "ngxcxx"}, {.name = "libstdc++"}};
    void *(*new)(size_t), *(*others)(size_t);
    void (*delete)(void *), (*others_delete)(void *);
    void *before, *p;

    UNIT_SKIP_IF_WATCHED("operator new is the checker's");
    __extension__({
        new = function(object.handle, "object_new");
        delete = function(object.handle, "object_delete");
        others = function(object.handle, "_Znwm");
        others_delete = function(object.handle, "_ZdlPv");
    });
    before = new (100);
    patch(objects, 1);
    cr_assert_eq(objects[0].slots, SLOTS + 2);
    p = new (100);
    cr_assert(hak_owns(p));
    others_delete(p);
    delete (before);
    p = others(100);
    cr_assert_not(hak_owns(p));
    delete (p);
    patch(objects, 2);
    cr_assert_gt(objects[1].slots, 2);
    p = others(100);
    cr_assert(hak_owns(p));
    delete (p);
}
