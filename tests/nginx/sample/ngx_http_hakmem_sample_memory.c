
/*
 * ngx_http_hakmem_sample_memory.c - the same work on ngx_palloc, on a pool of
 * hakmem_ngx.h and on malloc: what it takes of memory and time.
 */


#include <ngx_http_hakmem_sample.h>


#define NGX_HTTP_HAKMEM_VARS     5000
#define NGX_HTTP_HAKMEM_BATCH    1000
#define NGX_HTTP_HAKMEM_OBJECTS  10


static void *ngx_http_hakmem_palloc(void *pool, size_t size);
static void *ngx_http_hakmem_palloc_resize(void *pool, void *p, size_t old,
    size_t size);
static void ngx_http_hakmem_palloc_free(void *pool, void *p);
static void *ngx_http_hakmem_palloc_create(ngx_http_request_t *r);
static void ngx_http_hakmem_palloc_destroy(void *pool);
static size_t ngx_http_hakmem_palloc_bytes(void *pool);
static void *ngx_http_hakmem_pool(void *pool, size_t size);
static void *ngx_http_hakmem_pool_resize(void *pool, void *p, size_t old,
    size_t size);
static void ngx_http_hakmem_pool_free(void *pool, void *p);
static void *ngx_http_hakmem_pool_create(ngx_http_request_t *r);
static void ngx_http_hakmem_pool_destroy(void *pool);
static size_t ngx_http_hakmem_pool_bytes(void *pool);
static void *ngx_http_hakmem_malloc(void *pool, size_t size);
static void *ngx_http_hakmem_malloc_resize(void *pool, void *p, size_t old,
    size_t size);
static void ngx_http_hakmem_malloc_free(void *pool, void *p);
static void *ngx_http_hakmem_malloc_create(ngx_http_request_t *r);
static void ngx_http_hakmem_malloc_destroy(void *pool);
static size_t ngx_http_hakmem_malloc_bytes(void *pool);
static ngx_uint_t ngx_http_hakmem_now(void);


ngx_http_hakmem_server_t  ngx_http_hakmem_servers[] = {

    { ngx_string("palloc"),
      ngx_http_hakmem_palloc,
      ngx_http_hakmem_palloc_resize,
      ngx_http_hakmem_palloc_free,
      ngx_http_hakmem_palloc_create,
      ngx_http_hakmem_palloc_destroy,
      ngx_http_hakmem_palloc_bytes },

    { ngx_string("hakmem"),
      ngx_http_hakmem_pool,
      ngx_http_hakmem_pool_resize,
      ngx_http_hakmem_pool_free,
      ngx_http_hakmem_pool_create,
      ngx_http_hakmem_pool_destroy,
      ngx_http_hakmem_pool_bytes },

    { ngx_string("malloc"),
      ngx_http_hakmem_malloc,
      ngx_http_hakmem_malloc_resize,
      ngx_http_hakmem_malloc_free,
      ngx_http_hakmem_malloc_create,
      ngx_http_hakmem_malloc_destroy,
      ngx_http_hakmem_malloc_bytes },

    { ngx_null_string, NULL, NULL, NULL, NULL, NULL, NULL }
};


/* ngx_palloc, which frees large blocks alone */

static void *
ngx_http_hakmem_palloc(void *pool, size_t size)
{
    return ngx_palloc(pool, size);
}


static void *
ngx_http_hakmem_palloc_resize(void *pool, void *p, size_t old, size_t size)
{
    void  *new;

    new = ngx_palloc(pool, size);
    if (new != NULL) {
        ngx_memcpy(new, p, ngx_min(old, size));
        (void) ngx_pfree(pool, p);
    }

    return new;
}


static void
ngx_http_hakmem_palloc_free(void *pool, void *p)
{
    (void) ngx_pfree(pool, p);
}


static void *
ngx_http_hakmem_palloc_create(ngx_http_request_t *r)
{
    return ngx_create_pool(4096, r->connection->log);
}


static void
ngx_http_hakmem_palloc_destroy(void *pool)
{
    ngx_destroy_pool(pool);
}


/* The blocks of a pool; it does not know how large the large ones are. */

static size_t
ngx_http_hakmem_palloc_bytes(void *pool)
{
    size_t       bytes;
    ngx_pool_t  *p;

    bytes = 0;

    for (p = pool; p != NULL; p = p->d.next) {
        bytes += p->d.end - (u_char *) p;
    }

    return bytes;
}


/* a pool of hakmem_ngx.h */

static void *
ngx_http_hakmem_pool(void *pool, size_t size)
{
    return ngx_hak_palloc(pool, size);
}


static void *
ngx_http_hakmem_pool_resize(void *pool, void *p, size_t old, size_t size)
{
    return ngx_hak_prealloc(pool, p, size);
}


static void
ngx_http_hakmem_pool_free(void *pool, void *p)
{
    (void) ngx_hak_pfree(pool, p);
}


static void *
ngx_http_hakmem_pool_create(ngx_http_request_t *r)
{
    return ngx_hak_pool_create(r->pool, NULL);
}


static void
ngx_http_hakmem_pool_destroy(void *pool)
{
    ngx_hak_pool_destroy(pool);
}


static size_t
ngx_http_hakmem_pool_bytes(void *pool)
{
    ngx_hak_pool_stats_t  stats;

    stats.size = sizeof(ngx_hak_pool_stats_t);

    if (ngx_hak_pool_stats(pool, &stats) != NGX_OK) {
        return 0;
    }

    return ngx_max(stats.held_bytes, stats.live_bytes);
}


/* malloc, which every module may call as well */

static void *
ngx_http_hakmem_malloc(void *pool, size_t size)
{
    return malloc(size);
}


static void *
ngx_http_hakmem_malloc_resize(void *pool, void *p, size_t old, size_t size)
{
    return realloc(p, size);
}


static void
ngx_http_hakmem_malloc_free(void *pool, void *p)
{
    free(p);
}


static void *
ngx_http_hakmem_malloc_create(ngx_http_request_t *r)
{
    return r;
}


static void
ngx_http_hakmem_malloc_destroy(void *pool)
{
}


static size_t
ngx_http_hakmem_malloc_bytes(void *pool)
{
    return 0;
}


/*
 * Variables that a script sets: each set is a new value, the old one is
 * dropped, every fourth grows.
 */

ngx_int_t
ngx_http_hakmem_sample_sets(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void                      *pool, *p;
    size_t                     before, size;
    uint64_t                   random;
    ngx_uint_t                 i, n, v, nvars, wrong;
    ngx_http_hakmem_server_t  *server;

    static struct {
        void                  *p;
        size_t                 size;
    } vars[NGX_HTTP_HAKMEM_VARS];

    server = ngx_http_hakmem_server(r);
    if (server == NULL) {
        return NGX_HTTP_BAD_REQUEST;
    }

    pool = server->create(r);
    if (pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(vars, sizeof(vars));
    before = ngx_http_hakmem_rss();
    n = ngx_http_hakmem_arg(r, "n", 200000);
    nvars = ngx_min(ngx_http_hakmem_arg(r, "vars", 500), NGX_HTTP_HAKMEM_VARS);
    random = 1;
    wrong = 0;

    for (i = 0; i < n; i++) {
        v = ngx_http_hakmem_random(&random) % nvars;
        size = 1 + ngx_http_hakmem_random(&random) % 32;

        if (vars[v].p != NULL && i % 4 == 0) {
            size += vars[v].size;
            p = server->resize(pool, vars[v].p, vars[v].size, size);

            if (p != NULL) {
                wrong += !ngx_http_hakmem_filled(p, vars[v].size, v);
            }

        } else {
            if (vars[v].p != NULL) {
                wrong += !ngx_http_hakmem_filled(vars[v].p, vars[v].size, v);
                server->free(pool, vars[v].p);
            }

            p = server->alloc(pool, size);
        }

        if (p == NULL) {
            server->destroy(pool);
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_hakmem_fill(p, size, v);
        vars[v].p = p;
        vars[v].size = size;
    }

    ngx_http_hakmem_say(text, "bytes %uz\n", server->bytes(pool));
    ngx_http_hakmem_say(text, "rss %z\n",
                        (ssize_t) (ngx_http_hakmem_rss() - before));

    for (v = 0; v < NGX_HTTP_HAKMEM_VARS; v++) {
        if (vars[v].p != NULL) {
            wrong += !ngx_http_hakmem_filled(vars[v].p, vars[v].size, v);
            server->free(pool, vars[v].p);
        }
    }

    ngx_http_hakmem_say(text, "wrong %ui\n", wrong);
    server->destroy(pool);

    return NGX_OK;
}


/* Pools of connections that have little to do. */

ngx_int_t
ngx_http_hakmem_sample_idle(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void                     **pools, *p;
    size_t                     before, full;
    ngx_uint_t                 i, k, n, objects, start, made, ended;
    ngx_http_hakmem_server_t  *server;

    static size_t  sizes[NGX_HTTP_HAKMEM_OBJECTS] = {
        24, 40, 56, 64, 100, 120, 200, 30, 48, 300
    };

    server = ngx_http_hakmem_server(r);
    if (server == NULL) {
        return NGX_HTTP_BAD_REQUEST;
    }

    n = ngx_http_hakmem_arg(r, "n", 5000);
    objects = ngx_http_hakmem_arg(r, "objects", NGX_HTTP_HAKMEM_OBJECTS);

    pools = ngx_pcalloc(r->pool, n * sizeof(void *));
    if (pools == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    before = ngx_http_hakmem_rss();
    start = ngx_http_hakmem_now();

    for (i = 0; i < n; i++) {
        pools[i] = server->create(r);
        if (pools[i] == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        for (k = 0; k < objects; k++) {
            p = server->alloc(pools[i], sizes[k % NGX_HTTP_HAKMEM_OBJECTS]);
            if (p == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            ngx_memset(p, 'i', sizes[k % NGX_HTTP_HAKMEM_OBJECTS]);
        }
    }

    made = ngx_http_hakmem_now();
    full = ngx_http_hakmem_rss();

    for (i = 0; i < n; i++) {
        server->destroy(pools[i]);
    }

    ended = ngx_http_hakmem_now();

    ngx_http_hakmem_say(text, "each %z\n", (ssize_t) (full - before)
                                           / (ssize_t) n);
    ngx_http_hakmem_say(text, "left %z\n",
                        (ssize_t) (ngx_http_hakmem_rss() - before));
    ngx_http_hakmem_say(text, "make_ns %ui\n", (made - start) / n);
    ngx_http_hakmem_say(text, "destroy_ns %ui\n", (ended - made) / n);

    return NGX_OK;
}


/*
 * A block and its end, n times: alone, or in batches (batches=1).  ngx_palloc's
 * are freed with their pool, after each batch, others' too with batches=2.  The
 * functions have names of their own so that callgrind can be told to count them.
 */

__attribute__((noinline)) void
ngx_http_hakmem_time_pairs(ngx_http_hakmem_server_t *server, void *pool,
    ngx_uint_t n)
{
    void        *p;
    ngx_uint_t   i;

    for (i = 0; i < n; i++) {
        p = server->alloc(pool, 64);
        *(ngx_uint_t *) p = i;
        server->free(pool, p);
    }
}


__attribute__((noinline)) void
ngx_http_hakmem_time_batches(ngx_http_hakmem_server_t *server,
    ngx_http_request_t *r, void *pool, ngx_uint_t n)
{
    void        *p[NGX_HTTP_HAKMEM_BATCH];
    void        *fresh;
    ngx_uint_t   i, k;

    for (i = 0; i < n; i += NGX_HTTP_HAKMEM_BATCH) {
        fresh = pool == NULL ? server->create(r) : pool;

        for (k = 0; k < NGX_HTTP_HAKMEM_BATCH; k++) {
            p[k] = server->alloc(fresh, 16 + (k * 40503 % 512));
            *(ngx_uint_t *) p[k] = k;
        }

        if (pool == NULL) {
            server->destroy(fresh);
            continue;
        }

        for (k = 0; k < NGX_HTTP_HAKMEM_BATCH; k++) {
            server->free(fresh, p[k]);
        }
    }
}


ngx_int_t
ngx_http_hakmem_sample_time(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void                      *pool;
    ngx_int_t                  frees;
    ngx_uint_t                 i, n, others, start;
    ngx_http_hakmem_server_t  *server;

    server = ngx_http_hakmem_server(r);
    n = ngx_http_hakmem_arg(r, "n", 1000000);
    if (server == NULL || n % NGX_HTTP_HAKMEM_BATCH != 0) {
        return NGX_HTTP_BAD_REQUEST;
    }

    pool = server->create(r);
    if (pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* A pool of ours has a heap of its own if it has more than 1,024 blocks. */

    others = ngx_http_hakmem_arg(r, "others", 0);

    for (i = 0; i < others; i++) {
        if (server->alloc(pool, 64) == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    frees = server->alloc != ngx_http_hakmem_palloc
            && ngx_http_hakmem_arg(r, "batches", 0) != 2;

    start = ngx_http_hakmem_now();

    if (ngx_http_hakmem_arg(r, "batches", 0) == 0) {
        if (!frees) {
            return NGX_HTTP_BAD_REQUEST;
        }

        ngx_http_hakmem_time_pairs(server, pool, n);

    } else {
        ngx_http_hakmem_time_batches(server, r, frees ? pool : NULL, n);
    }

    ngx_http_hakmem_say(text, "ns %.2f\n",
                        (double) (ngx_http_hakmem_now() - start) / n);

    server->destroy(pool);

    return NGX_OK;
}


/* Blocks of all sizes that nobody frees but the end of the request. */

ngx_int_t
ngx_http_hakmem_sample_leave(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void        *pool, *p;
    ngx_uint_t   i, n, size;

    pool = ngx_http_hakmem_pool_create(r);
    if (pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = ngx_http_hakmem_arg(r, "n", 1000);

    for (i = 0; i < n; i++) {
        size = i % 100 == 99 ? 100000 : i % 10 == 9 ? 5000 : i % 800;

        p = ngx_hak_palloc(pool, size);
        if (p == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_memset(p, 'l', size);
    }

    ngx_http_hakmem_say(text, "bytes %uz\n", ngx_http_hakmem_pool_bytes(pool));

    return NGX_OK;
}


/* what all of them use */

ngx_http_hakmem_server_t *
ngx_http_hakmem_server(ngx_http_request_t *r)
{
    ngx_str_t                  value;
    ngx_http_hakmem_server_t  *server;

    if (ngx_http_arg(r, (u_char *) "server", 6, &value) != NGX_OK) {
        return NULL;
    }

    for (server = ngx_http_hakmem_servers; server->name.len; server++) {
        if (value.len == server->name.len
            && ngx_strncmp(value.data, server->name.data, value.len) == 0)
        {
            return server;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_hakmem_arg(ngx_http_request_t *r, char *name, ngx_uint_t otherwise)
{
    ngx_int_t  n;
    ngx_str_t  value;

    if (ngx_http_arg(r, (u_char *) name, ngx_strlen(name), &value) != NGX_OK) {
        return otherwise;
    }

    n = ngx_atoi(value.data, value.len);

    return n > 0 ? (ngx_uint_t) n : otherwise;
}


void
ngx_http_hakmem_say(ngx_http_hakmem_text_t *text, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    text->last = ngx_vslprintf(text->last, text->end, fmt, args);
    va_end(args);
}


ngx_uint_t
ngx_http_hakmem_random(uint64_t *state)
{
    *state = *state * 6364136223846793005 + 1442695040888963407;

    return *state >> 33;
}


void
ngx_http_hakmem_fill(void *p, size_t n, ngx_uint_t seed)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        ((u_char *) p)[i] = (u_char) (seed * 31 + i * 7);
    }
}


ngx_uint_t
ngx_http_hakmem_filled(void *p, size_t n, ngx_uint_t seed)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (((u_char *) p)[i] != (u_char) (seed * 31 + i * 7)) {
            return 0;
        }
    }

    return 1;
}


/* Resident bytes of the process. */

size_t
ngx_http_hakmem_rss(void)
{
    FILE           *file;
    unsigned long   all, resident;

    file = fopen("/proc/self/statm", "r");
    if (file == NULL) {
        return 0;
    }

    if (fscanf(file, "%lu %lu", &all, &resident) != 2) {
        resident = 0;
    }

    fclose(file);

    return resident * ngx_pagesize;
}


static ngx_uint_t
ngx_http_hakmem_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (ngx_uint_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}
