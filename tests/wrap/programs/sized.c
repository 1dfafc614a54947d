/*
 * sized.c WHAT - frees blocks as in C23, passing their sizes: all right ones,
 * or one that is wrong. If neither the C library nor anybody else has
 * free_sized, everything is right.
 */
#include "program.h"

static void (*sized)(void *, size_t);
static void (*aligned)(void *, size_t, size_t);

static void say_and_free(void *p, size_t size)
{
    NEED(p != NULL);
    fill(p, size, 4);
    sized != NULL ? sized(p, size) : free(p);
}

static void right(void)
{
    for (size_t i = 0; i < 400; i++) {
        size_t size = hide(i < 100 ? i : i * i * 20);
        size_t alignment = (size_t)16 << i % 12;
        void *p = aligned_alloc(alignment, size);

        say_and_free(malloc(size), size);
        say_and_free(calloc(i, 30), i * 30);
        say_and_free(realloc(malloc(size), size + 77), size + 77);
        NEED(p != NULL);
        aligned != NULL ? aligned(p, alignment, size) : free(p);
    }
    if (aligned != NULL) {
        sized(NULL, 5);
        aligned(NULL, 64, 5);
        aligned(aligned_alloc(hide(24), 100), 24, 100);
        aligned(aligned_alloc(hide(0), 100), 0, 100);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "right";

    *(void **)&sized = dlsym(RTLD_DEFAULT, "free_sized");
    *(void **)&aligned = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    NEED(sized != NULL || !has_hakmem());
    right();
    if (strcmp(what, "too large") == 0) {
        sized(malloc(hide(100)), 200);
    } else if (strcmp(what, "far too large") == 0) {
        sized(malloc(hide(50000)), 500000);
    } else if (strcmp(what, "too small") == 0) {
        sized(malloc(hide(100)), 99);
    } else if (strcmp(what, "far too small") == 0) {
        aligned(aligned_alloc(64, hide(100000)), 64, 5);
    } else if (strcmp(what, "not aligned") == 0) {
        aligned(malloc(hide(16)), 1 << 30, 16);
    }
    puts("well");
    return 0;
}
