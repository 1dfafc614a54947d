/*
 * libcore.c - a library with a core of its own, linked with libhakmem_lua.a and
 * no precautions: its names may be another's that comes first. For hosts.c.
 */
#include <hakmem_lua.h>

#include "program.h"

void core_work(void);

static void heaps(void)
{
    hak_lua_config config = {.size = sizeof(config), .name = "library"};
    hak_lua_heap *lua = hak_lua_heap_new(&config);
    hak_heap *heap = hak_heap_new(NULL);

    NEED(lua != NULL && heap != NULL);
    for (size_t size = 1; size < 4000000; size = size * 3 + 1) {
        void *p = hak_lua_alloc(lua, NULL, 4, size);
        void *q = hak_heap_malloc(heap, hide(size));

        fill(p, size, 1);
        fill(q, size, 2);
        p = hak_lua_alloc(lua, p, size, 2 * size);
        NEED(filled(p, size, 1) && filled(q, size, 2));
        hak_lua_alloc(lua, p, 2 * size, 0);
        hak_heap_free(heap, q);
    }
    hak_lua_heap_trim(lua);
    hak_lua_heap_delete(lua);
    hak_heap_delete(heap);
}

static void *threads_heap(void *arg)
{
    void **blocks = arg;
    size_t i = 0;

    for (size_t size = 1; size < 4000000; size = size * 3 + 1, i++) {
        if (blocks[i] != NULL) { /* the thread before made it */
            NEED(filled(blocks[i], size, 3));
            hak_lua_alloc(NULL, blocks[i], size, 0);
        }
        blocks[i] = hak_lua_alloc(NULL, NULL, 4, size);
        fill(blocks[i], size, 3);
        NEED(hak_lua_alloc(NULL, malloc(size), size, 0) == NULL);
        hak_free(hak_realloc(hak_malloc(size), size / 2 + 1));
    }
    return NULL;
}

void core_work(void)
{
    static void *blocks[20];
    pthread_t id;

    heaps();
    for (int i = 0; i < 3; i++) {
        NEED(pthread_create(&id, NULL, threads_heap, blocks) == 0);
        NEED(pthread_join(id, NULL) == 0);
    }
    hak_trim();
}
