/*
 * quickjs.c - a QuickJS runtime on an explicit heap each, with a limit.
 *
 * The user pointer is in the state, which the functions must also update:
 * malloc_size decides when QuickJS collects. Its size function gets only the
 * block, which is enough for hak_usable_size. realloc(NULL, 0) is requested and
 * must return NULL.
 */
#include "example.h"

#include <quickjs.h>

static void *give(JSMallocState *state, size_t size)
{
    void *p = hak_heap_malloc(state->opaque, size);

    if (p != NULL) {
        state->malloc_count++;
        state->malloc_size += hak_heap_good_size(state->opaque, size);
    }
    return p;
}

static void take(JSMallocState *state, void *p)
{
    if (p != NULL) {
        state->malloc_count--;
        state->malloc_size -= hak_heap_usable_size(state->opaque, p);
        hak_heap_free(state->opaque, p);
    }
}

static void *resize(JSMallocState *state, void *p, size_t size)
{
    size_t old = hak_heap_usable_size(state->opaque, p);
    void *moved;

    if (size == 0) {
        take(state, p);
        return NULL;
    }
    moved = hak_heap_realloc(state->opaque, p, size);
    if (moved != NULL) {
        state->malloc_count += p == NULL;
        state->malloc_size += hak_heap_usable_size(state->opaque, moved) - old;
    }
    return moved;
}

static JSRuntime *new_runtime(hak_heap *heap)
{
    static const JSMallocFunctions functions = {give, take, resize,
                                                hak_usable_size};

    return heap != NULL ? JS_NewRuntime2(&functions, heap) : JS_NewRuntime();
}

static const char work[] =
    "let all = [], sum = 0;\n"
    "for (let i = 0; i < 8000; i++) {\n"
    "    all.push({name: 'object ' + i, part: [i, i + 1, {x: i}]});\n"
    "    if (i % 3 == 0) all[i >> 1] = null;\n"
    "}\n"
    "let text = JSON.stringify(all), back = JSON.parse(text);\n"
    "back.forEach(o => { if (o) sum += o.part[2].x; });\n"
    "text.split(',').sort().join('').length + sum;\n";

static const char eater[] =
    "let all = []; for (;;) all.push({x: [all.length]});";

/*
 * Runs a script on a heap of its own; returns whether it ended without an
 * exception.
 */
static int run(hak_heap *heap, const char *script)
{
    JSRuntime *runtime = new_runtime(heap);
    JSContext *context = runtime != NULL ? JS_NewContext(runtime) : NULL;
    JSValue value;
    const char *text;
    int good;

    NEED(context != NULL);
    value = JS_Eval(context, script, strlen(script), "work.js", 0);
    good = !JS_IsException(value);
    text = JS_ToCString(context, good ? value : JS_GetException(context));
    printf("%s\n", text != NULL ? text : "?");
    if (heap == NULL) {
        JS_FreeCString(context, text);
        JS_FreeValue(context, value);
        JS_FreeContext(context);
        JS_FreeRuntime(runtime);
    } /* else hak_heap_delete does it at once: there are no finalizers */
    return good;
}

int main(int argc, char **argv)
{
    /* beyond the limit: InternalError: out of memory */
    return example_scripts(argc, argv, run, work, eater, 1 << 20);
}
