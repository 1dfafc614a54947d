
/*
 * ngx_http_hakmem_sample_check.c - what hakmem_ngx.h promises, seen from a
 * module.  Each check is a line: "NAME ok", or "NAME failed: LINE, EXPRESSION".
 */


#include <ngx_http_hakmem_sample.h>


#define NGX_HTTP_HAKMEM_MANY    1500
#define NGX_HTTP_HAKMEM_MASTER  1200

#define ngx_http_hakmem_need(expr)                                            \
    if (!(expr)) {                                                            \
        line = __LINE__;                                                      \
        what = #expr;                                                         \
        goto failed;                                                          \
    }


typedef const char *(*ngx_http_hakmem_check_pt)(ngx_http_request_t *r,
    ngx_uint_t *line);


typedef struct {
    char                      *name;
    ngx_http_hakmem_check_pt   run;
} ngx_http_hakmem_check_t;


/* Cleanup handlers write down that they were there. */

typedef struct {
    ngx_hak_pool_t            *pool;
    u_char                    *block;
    ngx_uint_t                 seen;      /* the block was as it should be */
    ngx_uint_t                 order;
} ngx_http_hakmem_witness_t;


static ngx_uint_t       ngx_http_hakmem_order;
static ngx_hak_pool_t  *ngx_http_hakmem_master_pool;
static void            *ngx_http_hakmem_master[NGX_HTTP_HAKMEM_MASTER];


static ngx_int_t
ngx_http_hakmem_stats(ngx_hak_pool_t *pool, ngx_hak_pool_stats_t *stats)
{
    stats->size = sizeof(ngx_hak_pool_stats_t);

    return ngx_hak_pool_stats(pool, stats);
}


static ngx_uint_t
ngx_http_hakmem_aligned(void *p)
{
    return (uintptr_t) p % 16 == 0;
}


/* Sizes of every lane, for the i-th block of many. */

static size_t
ngx_http_hakmem_size(ngx_uint_t i)
{
    static size_t  sizes[] = {
        0, 1, 16, 17, 100, 512, 1000, 1024, 1025, 4096, 20000, 53248, 53249,
        200000
    };

    /* Few of the large ones. */

    return sizes[i % (i % 20 ? 8 : sizeof(sizes) / sizeof(sizes[0]))];
}


static const char *
ngx_http_hakmem_check_blocks(ngx_http_request_t *r, ngx_uint_t *at)
{
    void                  *p[NGX_HTTP_HAKMEM_MANY];
    size_t                 size;
    ngx_uint_t             i, k, line;
    const char            *what;
    ngx_hak_pool_t        *pool;
    ngx_hak_pool_stats_t   stats;

    pool = ngx_hak_pool_create(r->pool, NULL);
    ngx_http_hakmem_need(pool != NULL);

    for (i = 0; i < NGX_HTTP_HAKMEM_MANY; i++) {
        size = ngx_http_hakmem_size(i);

        p[i] = i % 2 ? ngx_hak_palloc(pool, size) : ngx_hak_pcalloc(pool, size);
        ngx_http_hakmem_need(p[i] != NULL);
        ngx_http_hakmem_need(ngx_http_hakmem_aligned(p[i]));

        for (k = 0; i % 2 == 0 && k < size; k++) {
            ngx_http_hakmem_need(((u_char *) p[i])[k] == 0);
        }

        ngx_http_hakmem_fill(p[i], size, i);

        if (i % 3 == 2) {
            ngx_http_hakmem_need(ngx_http_hakmem_filled(p[i - 1],
                                         ngx_http_hakmem_size(i - 1), i - 1));
            ngx_http_hakmem_need(ngx_hak_pfree(pool, p[i - 1]) == NGX_OK);
            p[i - 1] = NULL;
        }
    }

    ngx_http_hakmem_need(ngx_http_hakmem_stats(pool, &stats) == NGX_OK);
    ngx_http_hakmem_need(stats.allocs == NGX_HTTP_HAKMEM_MANY);
    ngx_http_hakmem_need(stats.frees == NGX_HTTP_HAKMEM_MANY / 3);
    ngx_http_hakmem_need(stats.live_bytes > 0 && stats.limit_refusals == 0
                         && stats.limit == 0);

    for (i = 0; i < NGX_HTTP_HAKMEM_MANY; i++) {
        if (p[i] != NULL) {
            ngx_http_hakmem_need(ngx_http_hakmem_filled(p[i],
                                                ngx_http_hakmem_size(i), i));
            ngx_http_hakmem_need(ngx_hak_pfree(pool, p[i]) == NGX_OK);
        }
    }

    ngx_http_hakmem_need(ngx_http_hakmem_stats(pool, &stats) == NGX_OK);
    ngx_http_hakmem_need(stats.live_bytes == 0);
    ngx_http_hakmem_need(stats.allocs == stats.frees);

    (void) ngx_hak_pool_trim(pool);

    ngx_http_hakmem_need(ngx_http_hakmem_stats(pool, &stats) == NGX_OK);
    ngx_http_hakmem_need(stats.held_bytes == 0);

    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


/* Each block goes through all sizes, up and down. */

static const char *
ngx_http_hakmem_check_realloc(ngx_http_request_t *r, ngx_uint_t *at)
{
    void            *p[NGX_HTTP_HAKMEM_MANY];
    size_t           sizes[NGX_HTTP_HAKMEM_MANY], size, kept;
    uint64_t         random;
    ngx_uint_t       i, k, line;
    const char      *what;
    ngx_hak_pool_t  *pool;

    pool = ngx_hak_pool_create(r->pool, NULL);
    ngx_http_hakmem_need(pool != NULL);

    ngx_memzero(p, sizeof(p));
    ngx_memzero(sizes, sizeof(sizes));
    random = 3;

    for (i = 0; i < 7000; i++) {
        k = ngx_http_hakmem_random(&random)
            % (i < 1000 ? 30 : NGX_HTTP_HAKMEM_MANY);
        size = ngx_http_hakmem_size(ngx_http_hakmem_random(&random));
        kept = ngx_min(size, sizes[k]);

        p[k] = ngx_hak_prealloc(pool, p[k], size);
        ngx_http_hakmem_need(p[k] != NULL);
        ngx_http_hakmem_need(ngx_http_hakmem_aligned(p[k]));
        ngx_http_hakmem_need(ngx_http_hakmem_filled(p[k], kept, k));

        ngx_http_hakmem_fill(p[k], size, k);
        sizes[k] = size;
    }

    for (k = 0; k < NGX_HTTP_HAKMEM_MANY; k++) {
        ngx_http_hakmem_need(ngx_http_hakmem_filled(p[k], sizes[k], k));
    }

    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


static const char *
ngx_http_hakmem_check_zero(ngx_http_request_t *r, ngx_uint_t *at)
{
    void            *p, *q;
    ngx_uint_t       line;
    const char      *what;
    ngx_hak_pool_t  *pool;

    pool = ngx_hak_pool_create(r->pool, NULL);
    ngx_http_hakmem_need(pool != NULL);

    p = ngx_hak_palloc(pool, 0);
    q = ngx_hak_pcalloc(pool, 0);
    ngx_http_hakmem_need(p != NULL && q != NULL && p != q);

    p = ngx_hak_prealloc(pool, p, 0);
    ngx_http_hakmem_need(p != NULL && p != q);
    ngx_http_hakmem_need(ngx_hak_pfree(pool, p) == NGX_OK);
    ngx_http_hakmem_need(ngx_hak_pfree(pool, q) == NGX_OK);

    p = ngx_hak_prealloc(pool, NULL, 0);
    ngx_http_hakmem_need(p != NULL);
    ngx_http_hakmem_need(ngx_hak_pfree(pool, p) == NGX_OK);

    ngx_hak_pool_destroy(pool);
    ngx_hak_pool_destroy(NULL);

    return NULL;

failed:

    *at = line;
    return what;
}


/* Blocks of others are declined; nothing happens to them. */

static const char *
ngx_http_hakmem_check_declined(ngx_http_request_t *r, ngx_uint_t *at)
{
    void            *p[6], *mine;
    ngx_uint_t       i, k, line;
    const char      *what;
    ngx_hak_pool_t  *pool, *other;

    pool = ngx_hak_pool_create(r->pool, NULL);
    other = ngx_hak_pool_create(r->pool, NULL);
    ngx_http_hakmem_need(pool != NULL && other != NULL);

    p[0] = NULL;
    p[1] = ngx_palloc(r->pool, 100);
    p[2] = ngx_palloc(r->pool, 100000);
    p[3] = ngx_hak_palloc(other, 100);
    p[4] = ngx_hak_palloc(other, 100000);
    p[5] = &p[5];
    ngx_http_hakmem_need(p[1] && p[2] && p[3] && p[4]);

    ngx_memset(p[1], 1, 100);
    ngx_memset(p[3], 3, 100);

    for (k = 0; k < NGX_HTTP_HAKMEM_MANY; k++) {
        mine = ngx_hak_palloc(pool, 100);
        ngx_http_hakmem_need(mine != NULL);

        for (i = 0; i < 6; i++) {
            ngx_http_hakmem_need(ngx_hak_pfree(pool, p[i]) == NGX_DECLINED);

            if (p[i] != NULL) {
                ngx_set_errno(0);
                ngx_http_hakmem_need(ngx_hak_prealloc(pool, p[i], 10) == NULL);
                ngx_http_hakmem_need(ngx_errno == NGX_EINVAL);
            }
        }

        ngx_http_hakmem_need(ngx_hak_pfree(other, mine) == NGX_DECLINED);
    }

    ngx_http_hakmem_need(((u_char *) p[1])[99] == 1);
    ngx_http_hakmem_need(((u_char *) p[3])[99] == 3);
    ngx_http_hakmem_need(ngx_hak_pfree(other, p[3]) == NGX_OK);
    ngx_http_hakmem_need(ngx_pfree(r->pool, p[2]) == NGX_OK);

    ngx_hak_pool_destroy(other);
    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


/* The log gets a line for the first refusal, and again after a new limit. */

static const char *
ngx_http_hakmem_check_limit(ngx_http_request_t *r, ngx_uint_t *at)
{
    void                   *p, *last;
    ngx_uint_t              n, line;
    const char             *what;
    ngx_hak_pool_t         *pool;
    ngx_hak_pool_stats_t    stats;
    ngx_hak_pool_config_t   config;

    ngx_memzero(&config, sizeof(ngx_hak_pool_config_t));
    config.size = sizeof(ngx_hak_pool_config_t);
    config.limit = 128000;
    config.name = "limited";

    pool = ngx_hak_pool_create(r->pool, &config);
    ngx_http_hakmem_need(pool != NULL);

    last = NULL;

    for (n = 0; n < 100000; n++) {
        ngx_set_errno(0);
        p = ngx_hak_palloc(pool, 64);
        if (p == NULL) {
            break;
        }

        last = p;
    }

    ngx_http_hakmem_need(n == 2000);
    ngx_http_hakmem_need(ngx_errno == NGX_ENOMEM);

    ngx_http_hakmem_need(ngx_hak_pcalloc(pool, 1) == NULL);
    ngx_http_hakmem_need(ngx_hak_prealloc(pool, last, 100) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_ENOMEM);

    ngx_http_hakmem_need(ngx_http_hakmem_stats(pool, &stats) == NGX_OK);
    ngx_http_hakmem_need(stats.limit == 128000 && stats.live_bytes == 128000);
    ngx_http_hakmem_need(stats.limit_refusals == 3 && stats.allocs == 2000);

    /* their names of before */

    ngx_http_hakmem_need(stats.live == 128000 && stats.refused == 3
                         && stats.held == stats.held_bytes);

    ngx_http_hakmem_need(ngx_hak_pfree(pool, last) == NGX_OK);
    ngx_http_hakmem_need(ngx_hak_palloc(pool, 50) != NULL);
    ngx_http_hakmem_need(ngx_hak_pool_limit(pool, 10) == 128000);
    ngx_http_hakmem_need(ngx_hak_palloc(pool, 1) == NULL);
    ngx_http_hakmem_need(ngx_hak_pool_limit(pool, 0) == 10);
    ngx_http_hakmem_need(ngx_hak_palloc(pool, 1000000) != NULL);

    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


static const char *
ngx_http_hakmem_check_errors(ngx_http_request_t *r, ngx_uint_t *at)
{
    void                   *p;
    ngx_uint_t              line;
    const char             *what;
    ngx_hak_pool_t         *pool;
    ngx_hak_pool_stats_t    stats;
    ngx_hak_pool_config_t   config;

    ngx_memzero(&config, sizeof(ngx_hak_pool_config_t));
    config.size = sizeof(ngx_hak_pool_config_t) + 8;

    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_pool_create(r->pool, &config) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_EINVAL);
    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_pool_create(NULL, &config) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_EINVAL);

    pool = ngx_hak_pool_create(r->pool, NULL);
    ngx_http_hakmem_need(pool != NULL);

    stats.size = sizeof(ngx_hak_pool_stats_t) - 1;
    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_pool_stats(pool, &stats) == NGX_ERROR);
    ngx_http_hakmem_need(ngx_errno == NGX_EINVAL);

    /* More than there is, and more than there can be. */

    p = ngx_hak_palloc(pool, 100);
    ngx_http_hakmem_need(p != NULL);
    ngx_http_hakmem_fill(p, 100, 9);

    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_palloc(pool, (size_t) 1 << 50) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_ENOMEM);
    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_pcalloc(pool, (size_t) -1) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_ENOMEM);
    ngx_set_errno(0);
    ngx_http_hakmem_need(ngx_hak_prealloc(pool, p, (size_t) -100) == NULL);
    ngx_http_hakmem_need(ngx_errno == NGX_ENOMEM);
    ngx_http_hakmem_need(ngx_http_hakmem_filled(p, 100, 9));

    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


static void
ngx_http_hakmem_witness(void *data)
{
    ngx_http_hakmem_witness_t *w = data;

    w->order = ++ngx_http_hakmem_order;

    if (w->pool != NULL) {
        w->seen = ngx_http_hakmem_filled(w->block, 100, 7)
                  && ngx_hak_pfree(w->pool, w->block) == NGX_OK
                  && ngx_hak_palloc(w->pool, 2000) != NULL;
    }
}


static ngx_int_t
ngx_http_hakmem_add_witness(ngx_pool_t *parent, ngx_http_hakmem_witness_t *w)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(parent, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_hakmem_witness;
    cln->data = w;

    return NGX_OK;
}


/*
 * A cleanup handler that was added after a pool was made may use it, even if
 * the pool has the record of one that was made and destroyed before.
 */

static const char *
ngx_http_hakmem_check_order(ngx_http_request_t *r, ngx_uint_t *at)
{
    ngx_uint_t                  k, line;
    ngx_pool_t                 *parent;
    const char                 *what;
    ngx_http_hakmem_witness_t   before, after;

    for (k = 0; k < 2; k++) {
        parent = ngx_create_pool(1024, r->connection->log);
        ngx_http_hakmem_need(parent != NULL);

        ngx_memzero(&before, sizeof(before));
        ngx_memzero(&after, sizeof(after));
        ngx_http_hakmem_order = 0;

        if (k == 1) {
            ngx_hak_pool_destroy(ngx_hak_pool_create(parent, NULL));
        }

        ngx_http_hakmem_need(ngx_http_hakmem_add_witness(parent, &before)
                             == NGX_OK);

        after.pool = ngx_hak_pool_create(parent, NULL);
        ngx_http_hakmem_need(after.pool != NULL);
        after.block = ngx_hak_palloc(after.pool, 100);
        ngx_http_hakmem_need(after.block != NULL);
        ngx_http_hakmem_fill(after.block, 100, 7);

        ngx_http_hakmem_need(ngx_http_hakmem_add_witness(parent, &after)
                             == NGX_OK);

        ngx_destroy_pool(parent);

        ngx_http_hakmem_need(after.order == 1 && before.order == 2);
        ngx_http_hakmem_need(after.seen);
    }

    return NULL;

failed:

    *at = line;
    return what;
}


/* Pools come and go in a parent that stays as it is. */

static const char *
ngx_http_hakmem_check_parent(ngx_http_request_t *r, ngx_uint_t *at)
{
    u_char          *last;
    ngx_uint_t       i, k, line;
    ngx_pool_t      *parent;
    const char      *what;
    ngx_hak_pool_t  *pool[3];

    parent = ngx_create_pool(4096, r->connection->log);
    ngx_http_hakmem_need(parent != NULL);

    last = NULL;

    for (i = 0; i < 1000; i++) {
        for (k = 0; k < 3; k++) {
            pool[k] = ngx_hak_pool_create(parent, NULL);
            ngx_http_hakmem_need(pool[k] != NULL);
            ngx_http_hakmem_need(ngx_hak_pcalloc(pool[k], 1000) != NULL);
        }

        ngx_hak_pool_destroy(pool[i % 3]);
        ngx_hak_pool_destroy(pool[(i + 1) % 3]);
        ngx_hak_pool_destroy(pool[(i + 2) % 3]);

        ngx_http_hakmem_need(last == NULL || last == parent->d.last);
        last = parent->d.last;
    }

    ngx_http_hakmem_need(parent->d.next == NULL && parent->large == NULL);

    ngx_destroy_pool(parent);

    return NULL;

failed:

    *at = line;
    return what;
}


/*
 * ngx_reset_pool runs no cleanup handlers: a pool without a parent lives on,
 * and ends when it is told to.
 */

static const char *
ngx_http_hakmem_check_reset(ngx_http_request_t *r, ngx_uint_t *at)
{
    void            *p[NGX_HTTP_HAKMEM_MANY];
    ngx_uint_t       i, line;
    ngx_pool_t      *parent;
    const char      *what;
    ngx_hak_pool_t  *pool;

    parent = ngx_create_pool(1024, r->connection->log);
    pool = ngx_hak_pool_create(NULL, NULL);
    ngx_http_hakmem_need(parent != NULL && pool != NULL);

    for (i = 0; i < NGX_HTTP_HAKMEM_MANY; i++) {
        p[i] = ngx_hak_palloc(pool, i);
        ngx_http_hakmem_need(p[i] != NULL);
        ngx_http_hakmem_fill(p[i], i, i);
    }

    ngx_reset_pool(parent);

    for (i = 0; i < 100; i++) {
        ngx_http_hakmem_need(ngx_pcalloc(parent, 50) != NULL);
    }

    ngx_destroy_pool(parent);

    for (i = 0; i < NGX_HTTP_HAKMEM_MANY; i++) {
        ngx_http_hakmem_need(ngx_http_hakmem_filled(p[i], i, i));
    }

    ngx_hak_pool_destroy(pool);

    return NULL;

failed:

    *at = line;
    return what;
}


static ngx_http_hakmem_check_t  ngx_http_hakmem_checks[] = {
    { "blocks", ngx_http_hakmem_check_blocks },
    { "realloc", ngx_http_hakmem_check_realloc },
    { "zero", ngx_http_hakmem_check_zero },
    { "declined", ngx_http_hakmem_check_declined },
    { "limit", ngx_http_hakmem_check_limit },
    { "errors", ngx_http_hakmem_check_errors },
    { "order", ngx_http_hakmem_check_order },
    { "parent", ngx_http_hakmem_check_parent },
    { "reset", ngx_http_hakmem_check_reset },
    { NULL, NULL }
};


ngx_int_t
ngx_http_hakmem_sample_check(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    ngx_uint_t                line;
    const char               *what;
    ngx_http_hakmem_check_t  *check;

    for (check = ngx_http_hakmem_checks; check->name != NULL; check++) {
        what = check->run(r, &line);

        if (what == NULL) {
            ngx_http_hakmem_say(text, "%s ok\n", check->name);

        } else {
            ngx_http_hakmem_say(text, "%s failed: %ui, %s\n", check->name,
                                line, what);
        }
    }

    return NGX_OK;
}


/* A pool that lives as long as the configuration, made before the fork. */

ngx_int_t
ngx_http_hakmem_sample_init(ngx_cycle_t *cycle)
{
    ngx_uint_t  i;

    if (ngx_test_config) {
        return NGX_OK;
    }

    ngx_http_hakmem_master_pool = ngx_hak_pool_create(cycle->pool, NULL);
    if (ngx_http_hakmem_master_pool == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_HTTP_HAKMEM_MASTER; i++) {
        ngx_http_hakmem_master[i] = ngx_hak_palloc(ngx_http_hakmem_master_pool,
                                                   i);
        if (ngx_http_hakmem_master[i] == NULL) {
            return NGX_ERROR;
        }

        ngx_http_hakmem_fill(ngx_http_hakmem_master[i], i, i);
    }

    return NGX_OK;
}


/* A worker uses its copy of it, one block smaller or larger each time. */

ngx_int_t
ngx_http_hakmem_sample_master(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void                  *p;
    ngx_uint_t             i, wrong;
    ngx_hak_pool_stats_t   stats;

    static ngx_uint_t      more;

    wrong = 0;

    for (i = 0; i < NGX_HTTP_HAKMEM_MASTER; i++) {
        p = ngx_http_hakmem_master[i];
        wrong += !ngx_http_hakmem_filled(p, i + more, i);

        if (i % 2 == 0) {
            p = ngx_hak_prealloc(ngx_http_hakmem_master_pool, p, i + more + 1);

        } else {
            wrong += ngx_hak_pfree(ngx_http_hakmem_master_pool, p) != NGX_OK;
            p = ngx_hak_palloc(ngx_http_hakmem_master_pool, i + more + 1);
        }

        if (p == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_hakmem_fill(p, i + more + 1, i);
        ngx_http_hakmem_master[i] = p;
    }

    more++;

    if (ngx_http_hakmem_stats(ngx_http_hakmem_master_pool, &stats) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_hakmem_say(text, "wrong %ui\ntimes %ui\nblocks %uL\n", wrong,
                        more, stats.allocs - stats.frees);

    return NGX_OK;
}
