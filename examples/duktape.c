/*
 * duktape.c - a Duktape heap on an explicit heap each, with a limit.
 *
 * Duktape passes the user pointer to every call. Its alloc and realloc may be
 * asked for 0 bytes: they may return NULL or a block.
 */
#include "example.h"

#include <duktape.h>

static void *give(void *heap, duk_size_t size)
{
    return hak_heap_malloc(heap, size);
}

static void *resize(void *heap, void *p, duk_size_t size)
{
    if (size == 0) { /* frees the block */
        hak_heap_free(heap, p);
        return NULL;
    }
    return hak_heap_realloc(heap, p, size);
}

static void take(void *heap, void *p)
{
    hak_heap_free(heap, p);
}

static duk_context *new_context(hak_heap *heap)
{
    return heap != NULL ? duk_create_heap(give, resize, take, heap, NULL)
                        : duk_create_heap_default();
}

static const char work[] =
    "var all = [], sum = 0;\n"
    "for (var i = 0; i < 6000; i++) {\n"
    "    all.push({name: 'object ' + i, part: [i, i + 1, {x: i}]});\n"
    "    if (i % 3 == 0) all[i >> 1] = null;\n"
    "}\n"
    "var text = JSON.stringify(all), back = JSON.parse(text);\n"
    "back.forEach(function (o) { if (o) sum += o.part[2].x; });\n"
    "text.split(',').sort().join('').length + sum;\n";

/*
 * Duktape collects garbage before an allocation fails; then it raises an error.
 */
static const char eater[] =
    "var all = []; for (;;) all.push({x: [all.length]});";

/* Runs a script on a heap of its own; returns whether it ended well. */
static int run(hak_heap *heap, const char *script)
{
    duk_context *duk = new_context(heap);
    int failed;

    NEED(duk != NULL);
    failed = duk_peval_string(duk, script);
    printf("%s\n", duk_safe_to_string(duk, -1));
    if (heap == NULL) {
        duk_destroy_heap(duk);
    } /* else hak_heap_delete does it at once: this script has no finalizers */
    return !failed;
}

int main(int argc, char **argv)
{
    return example_scripts(argc, argv, run, work, eater, 1 << 20);
}
