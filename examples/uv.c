/*
 * uv.c - libuv's own memory from HAKMEM, and each connection's from a heap.
 *
 * uv_replace_allocator takes four functions for the whole process, before any
 * other call of libuv. libuv itself allocates little (requests, queues, names).
 * What the program allocates for a connection goes into an explicit heap, in
 * handle->data, with a limit, which is deleted when the connection closes.
 */
#include "example.h"

#include <uv.h>

enum { CONNECTIONS = 300, LINES = 200 };

struct connection {
    uv_pipe_t ours, theirs;
    hak_heap *heap; /* NULL: the C library */
    struct line {
        struct line *next;
        char text[];
    } * lines;
    size_t count, refused, limit;
};

static int on_hakmem;

static void *give(struct connection *c, size_t size)
{
    return c->heap != NULL ? hak_heap_malloc(c->heap, size) : malloc(size);
}

static void on_room(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char room[65536]; /* one thread, one loop */

    (void)handle;
    (void)size;
    *buf = uv_buf_init(room, sizeof room);
}

static void on_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;

    if (handle != (uv_handle_t *)&c->ours) {
        return;
    }
    if (c->heap != NULL) {
        hak_heap_delete(c->heap);
        return;
    }
    while (c->lines != NULL) {
        struct line *next = c->lines->next;

        free(c->lines);
        c->lines = next;
    }
}

/* Keeps every line that comes. */
static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct connection *c = stream->data;

    if (size < 0) {
        if (c->heap != NULL && c == c->ours.loop->data) {
            example_report(c->heap);
        }
        uv_close((uv_handle_t *)&c->ours, on_closed);
        return;
    }
    for (ssize_t at = 0; at + 20 <= size; at += 20) {
        struct line *line = give(c, sizeof *line + 20);

        if (line == NULL) {
            c->refused++;
            continue;
        }
        memcpy(line->text, buf->base + at, 20);
        line->next = c->lines;
        c->lines = line;
        c->count++;
    }
}

static void on_written(uv_write_t *write, int status)
{
    NEED(status == 0);
    if (--*(int *)write->data == 0) {
        uv_close((uv_handle_t *)write->handle, on_closed);
    }
    free(write);
}

static void start(uv_loop_t *loop, struct connection *c, int *left)
{
    uv_file ends[2];

    NEED(uv_socketpair(SOCK_STREAM, 0, ends, UV_NONBLOCK_PIPE,
                       UV_NONBLOCK_PIPE) == 0);
    uv_pipe_init(loop, &c->ours, 0);
    uv_pipe_init(loop, &c->theirs, 0);
    c->ours.data = c->theirs.data = c;
    NEED(uv_pipe_open(&c->ours, ends[0]) == 0 &&
         uv_pipe_open(&c->theirs, ends[1]) == 0);
    c->heap = on_hakmem ? example_heap("connection", c->limit) : NULL;
    NEED(uv_read_start((uv_stream_t *)&c->ours, on_room, on_read) == 0);
    for (*left = 0; *left < LINES; ++*left) {
        uv_write_t *write = malloc(sizeof *write);
        uv_buf_t bufs[5]; /* more than four: libuv makes a copy */

        for (int i = 0; i < 5; i++) {
            bufs[i] = uv_buf_init((char *)"four", 4);
        }
        NEED(write != NULL);
        write->data = left;
        NEED(uv_write(write, (uv_stream_t *)&c->theirs, bufs, 5, on_written) ==
             0);
    }
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    static struct connection all[CONNECTIONS];
    static int left[CONNECTIONS];
    uv_loop_t loop;

    on_hakmem = mode != LIBC;
    if (on_hakmem) {
        NEED(uv_replace_allocator(hak_malloc, hak_realloc, hak_calloc,
                                  hak_free) == 0);
    }
    NEED(uv_loop_init(&loop) == 0);
    loop.data = &all[0];
    for (int i = 0; i < CONNECTIONS; i++) {
        all[i].limit = mode == LIMIT ? 4096 : 0;
        start(&loop, &all[i], &left[i]);
    }
    NEED(uv_run(&loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&loop) == 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        NEED(all[i].count + all[i].refused == LINES);
        NEED((all[i].refused != 0) == (mode == LIMIT));
    }
    uv_library_shutdown();
    return 0;
}
