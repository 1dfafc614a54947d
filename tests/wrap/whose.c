/*
 * whose.c - a block goes back to the allocator that made it, however the
 * program or one of its libraries found malloc and free.
 */
#include "wrap_test.h"

TestSuite(whose, .timeout = 300);

static const struct wrap_how alone,
    preloaded = {.preload = true},
    forced = {.preload = true, .env = {"HAKMEM_FORCE_LIBC_ALLOC=1"}};

#define WHERE "plain"

/* The program says "well", with the library and without. */
#define expect_well(...)                                                       \
    do {                                                                       \
        wrap_expect(&alone, "well\n", "", __VA_ARGS__);                        \
        wrap_expect(&preloaded, "well\n", "", __VA_ARGS__);                    \
    } while (0)

/* ---- libraries that are opened ------------------------------------------ */

/* Another libc's free would get our blocks: RTLD_DEEPBIND is dropped. */
Test(whose, a_library_opened_with_deepbind)
{
    expect_well(wrap_program("plain/plugins"), "deepbind", wrap_program(WHERE));
    expect_well(wrap_program("plain/plugins"), "base", wrap_program(WHERE));
}

Test(whose, a_library_opened_with_deepbind_by_a_program_that_is_linked)
{
    wrap_expect(&alone, "well\n", "", wrap_program("shared/plugins"),
                "deepbind", wrap_program(WHERE));
    wrap_expect(&alone, "well\n", "", wrap_program("archive/plugins"),
                "deepbind", wrap_program(WHERE));
}

/* Told to keep the flag we keep it; then it is as it ever was. */
Test(whose, deepbind_is_kept_if_asked_for)
{
    static const struct wrap_how keep = {.preload = true,
                                         .env = {"HAKMEM_DEEPBIND=keep"}};
    struct wrap_said said;

    wrap_try(&said, &keep,
             (const char *const[]){wrap_program("plain/plugins"), "deepbind",
                                   wrap_program(WHERE), NULL});
    cr_assert(WIFSIGNALED(said.status));
    wrap_done(&said);
    wrap_expect(&forced, "well\n", "", wrap_program("plain/plugins"),
                "deepbind", wrap_program(WHERE));
}

Test(whose, a_library_opened_before_any_constructor_ran)
{
    expect_well(wrap_program("plain/opener"));
}

/* The dynamic linker goes by the address that a call returns to. */
Test(whose, a_library_opens_by_its_own_runpath)
{
    expect_well(wrap_program("plain/plugins"), "runpath", wrap_program(WHERE));
    wrap_expect(&alone, "well\n", "", wrap_program("archive/plugins"),
                "runpath", wrap_program(WHERE));
}

Test(whose, a_library_with_a_malloc_of_its_own)
{
    expect_well(wrap_program("plain/plugins"), "private", wrap_program(WHERE));
}

Test(whose, a_library_in_a_namespace_of_its_own)
{
    expect_well(wrap_program("plain/plugins"), "namespaces",
                wrap_program(WHERE));
}

Test(whose, a_library_that_audits)
{
    char *audit;

    cr_assert_gt(asprintf(&audit, "LD_AUDIT=%s",
                          wrap_program("plain/libaudit.so")),
                 0);
    expect_well("env", audit, wrap_program("plain/plugins"), "deepbind",
                wrap_program(WHERE));
    expect_well("env", audit, wrap_program("plain/handles"));
    free(audit);
}

/* Another library wraps dlopen and dlsym, too, before us or behind us. */
Test(whose, libraries_opened_where_others_wrap_dlopen)
{
    static const char *const orders[] = {"LD_PRELOAD=%1$s %2$s",
                                         "LD_PRELOAD=%2$s %1$s"};
    static const struct wrap_how calls = {.env = {"PROGRAM_CALLS=1"}};

    for (int i = 0; i < 2; i++) {
        struct wrap_said said;
        char *preload;
        int opens = 0, lookups = 0;

        cr_assert_gt(asprintf(&preload, orders[i], wrap_path("libhakmem.so"),
                              wrap_program("plain/libwraps.so")),
                     0);
        wrap_run(&said, &calls, "env", preload, wrap_program("plain/plugins"),
                 "deepbind", wrap_program(WHERE));
        cr_assert_str_eq(said.out, "well\n");
        cr_assert_eq(sscanf(said.err, "opens %d, lookups %d", &opens, &lookups),
                     2);
        cr_assert(opens > 60 && lookups > 100, "%s: said %s", preload,
                  said.err);
        wrap_done(&said);
        wrap_run(&said, &alone, "env", preload, wrap_program("plain/handles"));
        cr_assert_str_eq(said.out, "well\n");
        wrap_done(&said);
        free(preload);
    }
}

/* ---- functions that are looked up --------------------------------------- */

Test(whose, names_looked_up_in_the_c_library)
{
    expect_well(wrap_program("plain/handles"));
    wrap_expect(&forced, "well\n", "", wrap_program("plain/handles"));
    wrap_expect(&alone, "well\n", "", wrap_program("shared/handles"));
    wrap_expect(&alone, "well\n", "", wrap_program("archive/handles"));
}

/* malloc's address is one of the program's then, though it has none. */
Test(whose, a_program_that_is_not_position_independent)
{
    expect_well(wrap_program("plain/handles_nopie"));
    wrap_expect(&forced, "well\n", "", wrap_program("plain/handles_nopie"));
    expect_well(wrap_program("plain/plugins_nopie"), "deepbind",
                wrap_program(WHERE));
}

/* Debian's is not position independent; the first in PATH may be another. */
Test(whose, names_looked_up_by_python)
{
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};

    for (int i = 0; i < 2; i++) {
        expect_well(
            pythons[i], "-c",
            "import ctypes\n"
            "for name in 'libc.so.6', None:\n"
            "    c = ctypes.CDLL(name)\n"
            "    for f in c.strdup, c.malloc, c.realloc, c.calloc:\n"
            "        f.restype = ctypes.c_void_p\n"
            "    c.free.argtypes = [ctypes.c_void_p]\n"
            "    c.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n"
            "    for n in range(1, 200000, 999):\n"
            "        c.free(c.realloc(c.strdup(b'x' * n), n * 2))\n"
            "        c.free(c.realloc(c.calloc(2, n), n))\n"
            "print('well')\n");
    }
}

/* ---- other mallocs ------------------------------------------------------ */

Test(whose, a_program_with_a_malloc_of_its_own)
{
    expect_well(wrap_program("plain/ownmalloc"),
                wrap_program("plain/libplugin.so"));
    wrap_expect(&forced, "well\n", "", wrap_program("plain/ownmalloc"),
                wrap_program("plain/libplugin.so"));
}

Test(whose, a_program_that_calls_the_c_librarys_malloc_by_its_own_name)
{
    expect_well(wrap_program("plain/libcnames"));
    expect_well(wrap_program("plain/libcnames_wraps"));
    wrap_expect(&alone, "well\n", "", wrap_program("archive/libcnames"));
}

/* glibc's debugging library behind us is not asked, but does no harm. */
Test(whose, the_c_librarys_means_of_debugging)
{
    struct wrap_said said;
    char *preload;
    int fd;
    const char *file = wrap_temporary(&fd);
    char *trace;

    close(fd);
    cr_assert_gt(asprintf(&trace, "MALLOC_TRACE=%s", file), 0);
    cr_assert_gt(asprintf(&preload, "LD_PRELOAD=%s libc_malloc_debug.so.0",
                          wrap_path("libhakmem.so")),
                 0);
    expect_well("env", trace, wrap_program("plain/debugs"));
    wrap_run(&said, &alone, "env", trace, preload,
             wrap_program("plain/debugs"));
    cr_assert_str_eq(said.out, "well\n");
    wrap_done(&said);
    unlink(file);
    free(trace);
    free(preload);
}
