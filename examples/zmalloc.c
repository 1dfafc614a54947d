/*
 * zmalloc.c - a store that counts its memory, in the shape of Redis's zmalloc.
 *
 * Redis calls zmalloc everywhere; one header says what that is and how large a
 * block is (HAVE_MALLOC_SIZE, zmalloc_size), and used_memory is the sum.
 * Changing three lines there is enough for HAKMEM. maxmemory is hak_set_limit:
 * it counts what is held, including fragmentation, while used_memory counts
 * blocks only.
 */
#include "example.h"

#include <malloc.h>

static int on_hakmem;
static size_t used_memory;

static size_t zmalloc_size(void *p)
{
    return on_hakmem ? hak_usable_size(p) : malloc_usable_size(p);
}

/*
 * The user may use all of a block: *usable is its size, into which a string may
 * grow.
 */
static void *zmalloc_usable(size_t size, size_t *usable)
{
    void *p = on_hakmem ? hak_alloc_at_least(size, usable) : malloc(size);

    if (p != NULL) {
        *usable = on_hakmem ? *usable : malloc_usable_size(p);
        used_memory += *usable;
    }
    return p;
}

static void zfree(void *p)
{
    if (p != NULL) {
        used_memory -= zmalloc_size(p);
        on_hakmem ? hak_free(p) : free(p);
    }
}

static void *zrealloc(void *p, size_t size)
{
    size_t old = p != NULL ? zmalloc_size(p) : 0;
    void *moved = on_hakmem ? hak_realloc(p, size) : realloc(p, size);

    if (moved != NULL) {
        used_memory += zmalloc_size(moved) - old;
    }
    return moved;
}

enum { KEYS = 60000 };

static struct value {
    size_t size, room;
    char *text;
} * values[KEYS];

/* Appends to the value of a key; 0: no memory, nothing has changed. */
static int append(unsigned key, size_t n)
{
    struct value *value = values[key];
    size_t usable, room;
    char *text;

    if (value == NULL) {
        value = zmalloc_usable(sizeof *value, &usable);
        if (value == NULL) {
            return 0;
        }
        *value = (struct value){0};
        values[key] = value;
    }
    if (value->size + n > value->room) {
        room = (value->size + n) * 5 / 4;
        text = zrealloc(value->text, room);
        if (text == NULL) {
            return 0;
        }
        value->text = text;
        value->room = zmalloc_size(text);
    }
    memset(value->text + value->size, (int)key, n);
    value->size += n;
    return 1;
}

static void drop(unsigned key)
{
    if (values[key] != NULL) {
        zfree(values[key]->text);
        zfree(values[key]);
        values[key] = NULL;
    }
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    unsigned refused = 0, dice = 1;

    on_hakmem = mode != LIBC;
    if (mode == LIMIT) {
        hak_set_limit(12 << 20);
    }
    for (unsigned i = 0; i < 400000; i++) {
        dice = dice * 1103515245 + 12345;
        if (dice % 5 == 0) {
            drop(dice / 65536 % KEYS);
        } else if (!append(dice / 65536 % KEYS, 8 + dice % 120)) {
            refused++;
            for (unsigned k = 0; k < 100; k++) { /* evicts some keys */
                drop((dice / 65536 + k * 599) % KEYS);
            }
        }
    }
    NEED((refused != 0) == (mode == LIMIT));
    if (mode != LIBC) {
        example_report_process();
    }
    printf("used_memory=%zu refused=%u\n", used_memory, refused);
    for (unsigned k = 0; k < KEYS; k++) {
        drop(k);
    }
    NEED(used_memory == 0);
    return 0;
}
