/*
 * guards.h - what the tests of guarded blocks share.
 */
#ifndef GUARDS_H
#define GUARDS_H

#include "profile/guarded.h"
#include "unit.h"

/* A sanitizer that has SIGSEGV for itself reports and ends the process its own way. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GUARDS_SIGSEGV_TAKEN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GUARDS_SIGSEGV_TAKEN 1
#endif
#ifndef GUARDS_SIGSEGV_TAKEN
#define GUARDS_SIGSEGV_TAKEN 0
#endif

#define GUARDS_NEED_SIGSEGV()                                                  \
    do {                                                                       \
        if (GUARDS_SIGSEGV_TAKEN) {                                            \
            cr_skip("the sanitizer has SIGSEGV for itself");                   \
        }                                                                      \
    } while (0)

/* The hardened build's blocks end where their class does, with a guard of its own. */
#define GUARDS_SKIP_IF_HARD()                                                  \
    do {                                                                       \
        if (HAK_HARD) {                                                        \
            cr_skip("the hardened build's own guard is seen first");           \
        }                                                                      \
    } while (0)

/* The machine's page in pages of 4 KB. */
UNIT size_t guards_larger(void)
{
    return (size_t)sysconf(_SC_PAGESIZE) / 4096;
}

/* HAKMEM_GUARD_MEMORY for as many blocks as so much is for on pages of 4 KB, or the
 * most that it may be. */
UNIT void guards_set_memory(size_t bytes)
{
    char text[32];

    bytes = haki_min(bytes * guards_larger(), 16 * HAK_MIB);
    snprintf(text, sizeof(text), "%zuK", bytes / 1024);
    NEED(setenv("HAKMEM_GUARD_MEMORY", text, 1) == 0);
}

UNIT void guards_on(void)
{
    if (guards_larger() > 1 && getenv("HAKMEM_GUARD_MEMORY") == NULL) {
        guards_set_memory(512 * (size_t)1024);
    }
    NEED(hak_guard_start(1) == 0);
}

/* A guarded block: the first ones may come from what bins still have. */
UNIT char *guards_block(size_t size)
{
    char *p = NULL;

    for (int i = 0; i < 10000; i++) {
        p = hak_malloc(size);
        NEED(p != NULL);
        if (haki_guarded_covers(p)) {
            return p;
        }
    }
    NEED(false);
    return NULL;
}

/* Whether the byte can be read. */
UNIT bool guards_can_read(const void *p)
{
    int fd[2];
    bool can;

    NEED(pipe(fd) == 0);
    can = write(fd[1], unit_pointer(p), 1) == 1;
    NEED(can || errno == EFAULT);
    close(fd[0]);
    close(fd[1]);
    return can;
}

/* The same with a page behind it that is out of reach, or one before it. */
UNIT char *guards_block_at(size_t size, bool end)
{
    for (;;) {
        char *p = guards_block(size);

        if (!guards_can_read(end ? p + (size + 15) / 16 * 16 : p - 1)) {
            return p;
        }
        hak_free(p);
    }
}

/* run(arg) in a child dies by the signal after one report, which has all the words. */
UNIT void guards_expect(void (*run)(void *), void *arg, int death,
                        const char *const *words)
{
    struct unit_child child;
    const char *first;

    unit_child(&child, run, arg);
    first = strstr(child.said, "hakmem: guard: ");
    cr_assert_not_null(first, "status %#x, said: %s", (unsigned)child.status,
                       child.said);
    cr_assert_null(strstr(first + 1, "hakmem: guard: "), "%s", child.said);
    for (; *words != NULL; words++) {
        cr_assert_not_null(strstr(child.said, *words), "no '%s' in: %s", *words,
                           child.said);
    }
    cr_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == death,
              "status %#x: %s", (unsigned)child.status, child.said);
}

#define GUARDS_WORDS(...)                                                      \
    (const char *const[])                                                      \
    {                                                                          \
        __VA_ARGS__, NULL                                                      \
    }

#endif /* GUARDS_H */
