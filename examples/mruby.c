/*
 * mruby.c - an mruby state on an explicit heap each, with a limit.
 *
 * mrb_allocf is like realloc, with a user pointer and without the old size:
 * size 0 frees, p NULL allocates. mruby calls it for everything it has.
 */
#include "example.h"

#include <mruby.h>
#include <mruby/compile.h>
#include <mruby/string.h>

static void *allocf(mrb_state *mrb, void *p, size_t size, void *heap)
{
    (void)mrb;
    if (size == 0) {
        hak_heap_free(heap, p);
        return NULL;
    }
    return hak_heap_realloc(heap, p, size);
}

static mrb_state *new_state(hak_heap *heap)
{
    return heap != NULL ? mrb_open_allocf(allocf, heap) : mrb_open();
}

static const char work[] =
    "all = (0...8000).map { |i| {name: \"object #{i}\", part: [i, i + 1]} }\n"
    "words = all.map { |o| o[:name].split(' ')[1] }.sort.join(',')\n"
    "counts = {}\n"
    "words.each_char { |c| counts[c] = (counts[c] || 0) + 1 }\n"
    "20.times { |n| all = all.select { |o| o[:part][0] % 21 != n } }\n"
    "counts.keys.sort.map { |k| \"#{k}#{counts[k]}\" }.join + all.size.to_s\n";

static const char eater[] = "all = []\nloop { all << [all.size.to_s] }\n";

/*
 * Runs a script on a heap of its own; returns whether it ended without an
 * exception.
 */
static int run(hak_heap *heap, const char *script)
{
    mrb_state *mrb = new_state(heap);
    mrb_value value;
    int good;

    NEED(mrb != NULL);
    value = mrb_load_string(mrb, script);
    good = mrb->exc == NULL;
    value = good ? value : mrb_inspect(mrb, mrb_obj_value(mrb->exc));
    printf("%s\n", mrb_string_p(value) ? RSTRING_PTR(value) : "?");
    if (heap == NULL) {
        mrb_close(mrb);
    } /* else hak_heap_delete does it at once: this script opens no files */
    return good;
}

int main(int argc, char **argv)
{
    /* beyond the limit: NoMemoryError, which may be rescued */
    return example_scripts(argc, argv, run, work, eater, 2 << 20);
}
