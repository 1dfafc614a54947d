/*
 * frees.c - tests of blocks that come home: blocks of ours that any object
 * frees, however it has found free; objects that are loaded later; callers'
 * blocks that libc resizes and frees.
 */
#include <argz.h>
#include <dirent.h>
#include <dlfcn.h>
#include <envz.h>
#include <gnu/lib-names.h>
#include <iconv.h>
#include <link.h>
#include <malloc.h>
#include <regex.h>

#include "patch/elf.h"
#include "objects.h"

TestSuite(ngx_frees, .timeout = 300);

/* The version that free has had from the beginning. */
#ifdef __x86_64__
#define OLDEST "GLIBC_2.2.5"
#else
#define OLDEST "GLIBC_2.17"
#endif

/* Frees and grows blocks of ours; its own are libc's. */
static void check_by_address(const struct object *object)
{
    char *p = object->realloc(hak_ngx_strdup("ours"), 300);

    cr_assert(hak_owns(p));
    cr_assert_str_eq(p, "ours");
    object->free(p);
    object->free(hak_ngx_malloc(20));
    p = object->realloc(object->malloc(10), 2000);
    cr_assert_not(hak_owns(p));
    object->free(p);
    object->free(NULL);
    p = object->realloc(NULL, 10);
    cr_assert_not(hak_owns(p));
    cr_assert_null(object->realloc(hak_ngx_malloc(10), 0));
    object->free(p);
}

/* As libpam does to the answers of a module that is a part of the program. */
Test(ngx_frees, a_library_that_knows_nothing_of_us)
{
    struct object object = load("ngxnow", RTLD_NOW);

    patch(NULL, 0);
    check_by_address(&object);
    cr_assert_gt(hak_ngx_other_objects(), 1);
}

Test(ngx_frees, another_allocator_is_left_alone)
{
    struct object object;
    void *p;

    UNIT_SKIP_IF_WATCHED("the checker takes no RTLD_DEEPBIND");
    object = load("ngxallocator", RTLD_NOW | RTLD_DEEPBIND);
    patch(NULL, 0);
    p = object.malloc(10);
    cr_assert_not(hak_owns(p));
    object.free(p);
    cr_assert_eq(hak_ngx_find("ngxallocator"), HAK_NGX_NEVER);
    cr_assert_eq(hak_ngx_unpatched(), 0);
}

/* ---- objects that are loaded later ------------------------------------------------ */

struct dl {
    void *(*dlopen)(const char *file, int mode);
    void *(*dlmopen)(Lmid_t space, const char *file, int mode);
    void *(*dlsym)(void *handle, const char *name);
    void *(*dlvsym)(void *handle, const char *name, const char *version);
};

static struct dl load_dl(const char *name)
{
    void *handle = load(name, RTLD_NOW).handle;
    struct dl dl;

    __extension__({
        dl.dlopen = function(handle, "object_dlopen");
        dl.dlmopen = function(handle, "object_dlmopen");
        dl.dlsym = function(handle, "object_dlsym");
        dl.dlvsym = function(handle, "object_dlvsym");
    });
    return dl;
}

static void check_opened(void *handle)
{
    struct object object = opened(handle);

    check_by_address(&object);
    dlclose(handle);
}

Test(ngx_frees, what_is_opened_is_patched_at_once)
{
    struct dl dl = load_dl("ngxdl");

    patch(NULL, 0);
    check_opened(dl.dlopen(path_of("ngxlate"), RTLD_NOW));
    check_opened(dl.dlopen(path_of("ngxlazy"), RTLD_LAZY));
    check_opened(dl.dlmopen(LM_ID_BASE, path_of("ngxlate"), RTLD_NOW));
    /* Loaded again: at the same place, most likely. */
    check_opened(dl.dlopen(path_of("ngxlate"), RTLD_NOW));
}

/* An error is the caller's to ask for, and is libc's own text. */
static void check_error(const struct dl *dl, const char *file)
{
    char expected[300];

    dlerror();
    cr_assert_null(dlopen(file, RTLD_NOW));
    snprintf(expected, sizeof(expected), "%s", dlerror());
    cr_assert_null(dl->dlopen(file, RTLD_NOW));
    cr_assert_str_eq(dlerror(), expected);
    cr_assert_null(dlerror());
}

Test(ngx_frees, errors_of_dlopen)
{
    struct dl dl = load_dl("ngxdl");

    patch(NULL, 0);
    check_error(&dl, "/no/such/library.so");
    check_error(&dl, "libnosuchlibrary.so");
    check_error(&dl, "libngxfriend.so");
    check_error(&dl, "/dev/null");
    cr_assert_null(dl.dlopen("libngxfriend.so", RTLD_NOW));
    patch(NULL, 0);
    cr_assert_not_null(dlerror());
    cr_assert_not_null(dl.dlopen(NULL, RTLD_NOW));
}

/* The caller's own directories are looked through, as without us. */
Test(ngx_frees, the_caller_s_runpath)
{
    struct dl dl = load_dl("ngxrunpath");
    void *handle;
    void (*give_back)(void *);

    UNIT_SKIP_IF_WATCHED("dlopen is the checker's, and the caller of libc's");
    patch(NULL, 0);
    handle = dl.dlopen("libngxfriend.so", RTLD_NOW);
    cr_assert_not_null(handle, "%s", dlerror());
    __extension__({ give_back = dl.dlsym(handle, "object_free"); });
    give_back(hak_ngx_malloc(10));
    handle = dl.dlopen("$ORIGIN/libngxlate.so", RTLD_NOW);
    cr_assert_not_null(handle, "%s", dlerror());
    __extension__({ give_back = dl.dlsym(handle, "object_free"); });
    give_back(hak_ngx_malloc(10));
}

Test(ngx_frees, what_libc_loads_is_caught_up_with)
{
    iconv_t converter;
    unsigned slots;

    patch(NULL, 0);
    slots = hak_ngx_other_slots();
    converter = iconv_open("UTF-8", "ISO-2022-JP");
    if (converter == (iconv_t)-1) {
        cr_skip("iconv has no modules here");
    }
    errno = 77;
    hak_ngx_catch_up();
    cr_assert_eq(errno, 77);
    cr_assert_gt(hak_ngx_other_slots(), slots);
    cr_assert_eq(iconv_close(converter), 0);
}

static _Atomic(bool) enough;

struct loader {
    struct dl dl;
    char path[400];
    pthread_t thread;
    unsigned rounds;
};

static void *keep_loading(void *arg)
{
    struct loader *loader = arg;

    while (!atomic_load(&enough)) {
        void *handle = loader->dl.dlopen(loader->path, RTLD_NOW);
        void (*give_back)(void *);

        NEED(handle != NULL);
        __extension__({ give_back = loader->dl.dlsym(handle, "object_free"); });
        give_back(hak_ngx_malloc(30));
        dlclose(handle);
        loader->rounds++;
    }
    return NULL;
}

/* Threads that load, and one that patches. */
Test(ngx_frees, threads)
{
    static const char *const names[] = {"ngxlate", "ngxlazy", "ngxnow"};
    struct loader loaders[3];
    struct dl dl = load_dl("ngxdl");

#ifdef HAK_TSAN
    cr_skip("the loader's lock is one that the checker does not see");
#endif
    patch(NULL, 0);
    for (int i = 0; i < 3; i++) {
        loaders[i] = (struct loader){.dl = dl};
        snprintf(loaders[i].path, sizeof(loaders[i].path), "%s",
                 path_of(names[i]));
        cr_assert_eq(pthread_create(&loaders[i].thread, NULL, keep_loading,
                                    &loaders[i]),
                     0);
    }
    for (int i = 0; i < 20; i++) {
        char why[200];

        /* It may find no moment at which nobody loads; the next time may. */
        if (hak_ngx_patch(NULL, 0, why, sizeof(why)) != 0) {
            cr_assert_str_eq(why, "libraries are being loaded");
        }
        hak_ngx_catch_up();
        sched_yield();
    }
    atomic_store(&enough, true);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_join(loaders[i].thread, NULL), 0);
    }
    patch(NULL, 0);
}

/* ---- a thread that binds a slot late ------------------------------------------------ */

static hak_ngx_function **slot_of_free;

static int find_slot(struct dl_phdr_info *info, size_t size, void *name)
{
    struct hak_ngx_elf elf;
    struct hak_ngx_reloc reloc;
    const char *why;

    (void)size;
    if (strstr(info->dlpi_name, name) != NULL &&
        hak_ngx_elf_open(&elf, info, &why)) {
        for (size_t i = 0; i < elf.tables[1].count; i++) {
            if (hak_ngx_elf_reloc(&elf, 1, i, &reloc) &&
                strcmp(reloc.name, "free") == 0) {
                slot_of_free = (hak_ngx_function **)reloc.at;
            }
        }
    }
    return 0;
}

/* What the dynamic linker does for a first call that began before the patch. */
static void bind_late(void)
{
    *slot_of_free = (hak_ngx_function *)free;
}

/* Meanwhile an object may have gone, or one have come that nobody knows. */
static void check_late(bool goes, bool comes)
{
    struct object object = load("ngxlazy", RTLD_LAZY);
    struct object other = load("ngxnow", RTLD_NOW);

    UNIT_SKIP_IF_WATCHED("free is the checker's");
    dl_iterate_phdr(find_slot, (void *)(uintptr_t) "ngxlazy");
    cr_assert_not_null(slot_of_free);
    patch(NULL, 0);
    bind_late();
    if (goes) {
        cr_assert_eq(dlclose(other.handle), 0);
    }
    if (comes) {
        load("ngxlate", RTLD_NOW);
    }
    hak_ngx_catch_up();
    check_by_address(&object);
    hak_ngx_unpatch();
    object.free(object.malloc(20));
    cr_assert_neq(*slot_of_free, (hak_ngx_function *)hak_ngx_any_free);
}

Test(ngx_frees, a_slot_that_is_bound_late)
{
    check_late(false, false);
}

Test(ngx_frees, a_slot_that_is_bound_late_when_objects_go)
{
    check_late(true, false);
}

Test(ngx_frees, a_slot_that_is_bound_late_when_objects_come)
{
    check_late(false, true);
}

/* ---- by name ----------------------------------------------------------------------- */

Test(ngx_frees, by_name)
{
    struct dl dl = load_dl("ngxdl");
    void *libc = dlopen(LIBC_SO, RTLD_NOW), *program = dlopen(NULL, RTLD_NOW);
    void *ours = (void *)(uintptr_t)hak_ngx_any_free;

    UNIT_SKIP_IF_WATCHED("free is the checker's");
    patch(NULL, 0);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "free"), ours);
    cr_assert_eq(dl.dlsym(RTLD_NEXT, "free"), ours);
    cr_assert_eq(dl.dlsym(libc, "free"), ours);
    cr_assert_eq(dl.dlsym(program, "free"), ours);
    cr_assert_eq(dl.dlvsym(RTLD_DEFAULT, "free", OLDEST), ours);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "realloc"),
                 (void *)(uintptr_t)hak_ngx_any_realloc);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "reallocarray"),
                 (void *)(uintptr_t)hak_ngx_any_reallocarray);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "malloc_usable_size"),
                 (void *)(uintptr_t)hak_ngx_malloc_usable_size);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "getline"),
                 (void *)(uintptr_t)hak_ngx_any_getline);
#ifdef __x86_64__
    cr_assert_eq(dl.dlvsym(RTLD_DEFAULT, "cfree", OLDEST), ours);
#endif
}

Test(ngx_frees, all_other_names)
{
    struct dl dl = load_dl("ngxdl");
    void *own = load("ngxown", RTLD_NOW).handle;
    char expected[200];

    patch(NULL, 0);
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "malloc"),
                 dlsym(RTLD_DEFAULT, "malloc"));
    cr_assert_eq(dl.dlsym(RTLD_DEFAULT, "strlen"),
                 dlsym(RTLD_DEFAULT, "strlen"));
    cr_assert_eq(dl.dlsym(own, "object_own"), dlsym(own, "object_own"));
    /* An object's own function of such a name. */
    cr_assert_eq(dl.dlsym(own, "free_sized"), dlsym(own, "free_sized"));
    cr_assert_null(dlsym(own, "no_such_name"));
    snprintf(expected, sizeof(expected), "%s", dlerror());
    cr_assert_null(dl.dlsym(own, "no_such_name"));
    cr_assert_str_eq(dlerror(), expected);
    cr_assert_null(dl.dlvsym(RTLD_DEFAULT, "free", "NO_SUCH_VERSION"));
    cr_assert_not_null(dlerror());
    cr_assert_null(dlerror());
}

/* ---- what libc resizes and frees of its callers' ------------------------------------- */

struct callers {
    ssize_t (*getline)(char **line, size_t *room, FILE *file);
    void (*regfree)(regex_t *pattern);
    const char *(*compile)(regex_t *pattern, const char *text);
    int (*search)(regex_t *pattern, const char *text,
                  struct re_registers *registers);
    void *(*reallocarray)(void *p, size_t count, size_t size);
    size_t (*usable)(void *p);
    char *(*grow)(const char *text, int times);
};

/* The same whether the object is served or not. */
static struct callers load_callers(bool served)
{
    void *handle = load("ngxcallers", RTLD_NOW).handle;
    hak_ngx_object objects[] = {{.name = "ngxcallers"}};
    struct callers callers;

    __extension__({
        callers.getline = function(handle, "object_getline");
        callers.regfree = function(handle, "object_regfree");
        callers.compile = function(handle, "object_compile");
        callers.search = function(handle, "object_search");
        callers.reallocarray = function(handle, "object_reallocarray");
        callers.usable = function(handle, "object_usable");
        callers.grow = function(handle, "object_grow");
    });
    patch(objects, served ? 1 : 0);
    return callers;
}

static void check_lines(bool served)
{
    static const char text[] = "short\na line that is longer than the room "
                               "that there is for it\n";
    struct callers callers = load_callers(served);
    FILE *file = fmemopen((void *)text, sizeof(text) - 1, "r");
    char *line = hak_ngx_malloc(8);
    size_t room = 8;

    cr_assert_eq(callers.getline(&line, &room, file), 6);
    cr_assert_eq(callers.getline(&line, &room, file), sizeof(text) - 1 - 6);
    cr_assert_eq(strncmp(line, "a line", 6), 0);
    cr_assert_geq(room, sizeof(text) - 6);
    hak_ngx_free(line);
    rewind(file);
    line = NULL;
    cr_assert_eq(callers.getline(&line, &room, file), 6);
    hak_ngx_free(line);
    fclose(file);
}

Test(ngx_frees, lines)
{
    check_lines(true);
}

Test(ngx_frees, lines_of_one_that_is_not_served)
{
    check_lines(false);
}

/* GNU's interface: the caller allocates tables, buffer and registers. */
static void check_regex(bool served)
{
    struct callers callers = load_callers(served);
    struct re_registers registers = {
        .num_regs = 1, .start = hak_ngx_malloc(16), .end = hak_ngx_malloc(16)};
    regex_t pattern = {.buffer = hak_ngx_malloc(64), .allocated = 64};

    pattern.fastmap = hak_ngx_malloc(256);
    pattern.translate = hak_ngx_malloc(256);
    for (int i = 0; i < 256; i++) {
        ((char *)pattern.translate)[i] = (char)i;
    }
    re_set_syntax(RE_SYNTAX_POSIX_EXTENDED);
    cr_assert_null(callers.compile(&pattern, "(b)(c)"));
    pattern.regs_allocated = 1; /* REGS_REALLOCATE */
    cr_assert_eq(callers.search(&pattern, "abcd", &registers), 1);
    cr_assert_eq(registers.start[2], 2);
    cr_assert_eq(registers.end[2], 3);
    callers.regfree(&pattern);
    hak_ngx_free(registers.start);
    hak_ngx_free(registers.end);
    cr_assert_eq(regcomp(&pattern, "x+", REG_EXTENDED | REG_ICASE), 0);
    callers.regfree(&pattern);
}

Test(ngx_frees, regular_expressions)
{
    check_regex(true);
}

Test(ngx_frees, regular_expressions_of_one_that_is_not_served)
{
    check_regex(false);
}

static void check_rest(bool served)
{
    struct callers callers = load_callers(served);
    void *p = callers.reallocarray(hak_ngx_malloc(10), 10, 10);
    char *text;

    cr_assert(hak_owns(p));
    cr_assert_geq(callers.usable(p), 100);
    hak_ngx_free(p);
    errno = 0;
    p = hak_ngx_malloc(10);
    cr_assert_null(callers.reallocarray(p, SIZE_MAX, 10));
    cr_assert_eq(errno, ENOMEM);
    hak_ngx_free(p);
    text = callers.grow("some text ", 2000);
    cr_assert_eq(strlen(text), 20000);
    hak_ngx_free(text);
}

Test(ngx_frees, obstacks_and_the_rest)
{
    check_rest(true);
}

Test(ngx_frees, obstacks_and_the_rest_of_one_that_is_not_served)
{
    check_rest(false);
}

/* A vector of ours with these strings in it. */
static char *vector(size_t *length)
{
    static const char text[] = "one\0two=2\0three";

    *length = sizeof(text);
    return memcpy(hak_ngx_malloc(sizeof(text)), text, sizeof(text));
}

/* Strings of a vector, with a blank before each. */
static void check_vector(char **argz, size_t *length, const char *expected)
{
    char text[200] = "";

    for (char *at = NULL; (at = argz_next(*argz, *length, at)) != NULL;) {
        strcat(strcat(text, " "), at);
    }
    cr_assert_str_eq(text, expected);
    hak_ngx_free(*argz);
    *argz = vector(length);
}

Test(ngx_frees, vectors_of_strings)
{
    size_t length;
    char *argz = vector(&length);
    unsigned count = 0;

    cr_assert_eq(hak_ngx_argz_add(&argz, &length, "x"), 0);
    check_vector(&argz, &length, " one two=2 three x");
    cr_assert_eq(hak_ngx_argz_add_sep(&argz, &length, "x:y", ':'), 0);
    check_vector(&argz, &length, " one two=2 three x y");
    cr_assert_eq(hak_ngx_argz_append(&argz, &length, "x\0y", 4), 0);
    check_vector(&argz, &length, " one two=2 three x y");
    cr_assert_eq(hak_ngx_argz_insert(&argz, &length, argz + 4, "x"), 0);
    check_vector(&argz, &length, " one x two=2 three");
    cr_assert_eq(hak_ngx_argz_insert(&argz, &length, NULL, "x"), 0);
    check_vector(&argz, &length, " one two=2 three x");
    cr_assert_eq(hak_ngx_argz_replace(&argz, &length, "o", "longer", &count),
                 0);
    check_vector(&argz, &length, " longerne twlonger=2 three");
    hak_ngx_argz_delete(&argz, &length, argz + 4);
    cr_assert(hak_owns(argz));
    check_vector(&argz, &length, " one three");
    cr_assert_eq(hak_ngx_envz_add(&argz, &length, "two", "3"), 0);
    check_vector(&argz, &length, " one three two=3");
    cr_assert_eq(hak_ngx_envz_merge(&argz, &length, "four=4", 7, 1), 0);
    check_vector(&argz, &length, " one two=2 three four=4");
    hak_ngx_envz_remove(&argz, &length, "two");
    check_vector(&argz, &length, " one three");
    hak_ngx_envz_remove(&argz, &length, "none");
    check_vector(&argz, &length, " one two=2 three");
    while (length != 0) {
        hak_ngx_argz_delete(&argz, &length, argz);
    }
    cr_assert_null(argz);
}

/* Those of libc's, and none at all. */
Test(ngx_frees, vectors_of_libc_s)
{
    size_t length = 0;
    char *argz = NULL;

    cr_assert_eq(hak_ngx_argz_add(&argz, &length, "x"), 0);
    cr_assert_eq(hak_ngx_argz_add(&argz, &length, "y"), 0);
    hak_ngx_argz_delete(&argz, &length, argz);
    cr_assert_str_eq(argz, "y");
    hak_ngx_argz_delete(&argz, &length, argz);
    cr_assert_null(argz);
}

/* ---- what libc hands out ------------------------------------------------------------- */

Test(ngx_frees, what_libc_allocates)
{
    const char *format = "%ms"; /* which ISO C does not know */
    char *text = NULL, *word = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    struct dirent **entries;
    int n;

    fprintf(file, "%s", "some text");
    fclose(file);
    cr_assert_eq(length, 9);
    cr_assert_eq(sscanf(text, format, &word), 1);
    cr_assert_str_eq(word, "some");
    hak_ngx_any_free(word);
    text = hak_ngx_any_realloc(text, 1000);
    cr_assert_str_eq(text, "some text");
    hak_ngx_free(text);
    n = scandir("/", &entries, NULL, alphasort);
    cr_assert_gt(n, 2);
    while (n-- > 0) {
        hak_ngx_any_free(entries[n]);
    }
    hak_ngx_any_free(entries);
    cr_assert_gt(asprintf(&text, "%d", 7), 0);
    hak_ngx_any_free(text);
    hak_ngx_any_free(get_current_dir_name());
    hak_ngx_free(realpath("/", NULL));
    hak_ngx_free(strdup("text"));
}

/* What frees of ours cost such a block; errno is kept, nothing is counted. */
Test(ngx_frees, others_are_not_counted)
{
    hak_ngx_stats before, after;

    cr_assert(hak_ngx_start());
    hak_ngx_get_stats(&before);
    errno = 77;
    hak_ngx_any_free(malloc(10));
    hak_ngx_any_free(NULL);
    hak_ngx_any_free(hak_ngx_malloc(10));
    cr_assert_eq(errno, 77);
    hak_ngx_get_stats(&after);
    cr_assert_eq(after.foreign_frees, before.foreign_frees);
}
