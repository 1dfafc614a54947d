
/*
 * pool.c - pools for modules: hakmem_ngx.h, which documents them.
 *
 * blocks.c, which is independent of nginx, manages a pool's memory. This file
 * binds pools to their parents and writes the log.
 *
 * A pool is a block of HAKMEM's, not of the parent's, and its cleanup record is
 * reused, so pools may come and go in a long-lived parent.
 */


#include <hakmem.h>
#include <hakmem_ngx.h>
#include <pool/blocks.h>


/*
 * How many of the parent's newest cleanup records are searched for a reusable
 * one.
 */
#define NGX_HAK_POOL_LOOK  16


struct ngx_hak_pool_s {
    struct hak_ngx_blocks   hak;
    ngx_pool_t           *parent;    /* NULL: none */
    ngx_pool_cleanup_t   *cleanup;
    unsigned              warned:1;  /* of the limit */
};


static ngx_pool_cleanup_t *ngx_hak_pool_record(ngx_pool_t *parent);
static void ngx_hak_pool_cleanup(void *data);
static void ngx_hak_pool_failed(ngx_hak_pool_t *pool, const char *func,
    size_t size);
static ngx_log_t *ngx_hak_pool_log(ngx_pool_t *parent);


ngx_hak_pool_t *
ngx_hak_pool_create(ngx_pool_t *parent, const ngx_hak_pool_config_t *config)
{
    ngx_hak_pool_t      *pool;
    ngx_pool_cleanup_t  *cln;

    if (config != NULL && config->size != sizeof(ngx_hak_pool_config_t)) {
        ngx_log_error(NGX_LOG_ALERT, ngx_hak_pool_log(parent), 0,
                      "ngx_hak_pool_create(): config->size is %uz instead of "
                      "%uz; set it to sizeof(ngx_hak_pool_config_t), or "
                      "rebuild with this version's hakmem_ngx.h",
                      config->size, sizeof(ngx_hak_pool_config_t));
        ngx_set_errno(NGX_EINVAL);
        return NULL;
    }

    pool = hak_calloc(1, sizeof(ngx_hak_pool_t));
    if (pool == NULL) {
        ngx_log_error(NGX_LOG_EMERG, ngx_hak_pool_log(parent), ngx_errno,
                      "ngx_hak_pool_create() failed");
        return NULL;
    }

    hak_ngx_blocks_init(&pool->hak, config ? config->limit : 0,
                      config ? config->name : NULL);

    if (parent != NULL) {
        cln = ngx_hak_pool_record(parent);
        if (cln == NULL) {
            hak_free(pool);
            ngx_set_errno(NGX_ENOMEM);
            return NULL;
        }

        cln->handler = ngx_hak_pool_cleanup;
        cln->data = pool;

        pool->parent = parent;
        pool->cleanup = cln;
    }

    return pool;
}


/*
 * A cleanup record of a pool that was destroyed, or a new one. An older record
 * runs later than a new one would, when nobody uses the pool any more.
 */

static ngx_pool_cleanup_t *
ngx_hak_pool_record(ngx_pool_t *parent)
{
    ngx_uint_t           n;
    ngx_pool_cleanup_t  *cln;

    cln = parent->cleanup;

    for (n = 0; n < NGX_HAK_POOL_LOOK && cln != NULL; n++) {
        if (cln->handler == ngx_hak_pool_cleanup && cln->data == NULL) {
            return cln;
        }

        cln = cln->next;
    }

    return ngx_pool_cleanup_add(parent, 0);
}


static void
ngx_hak_pool_cleanup(void *data)
{
    ngx_hak_pool_destroy(data);
}


void
ngx_hak_pool_destroy(ngx_hak_pool_t *pool)
{
    if (pool == NULL) {
        return;
    }

    if (pool->cleanup != NULL) {
        pool->cleanup->data = NULL;
    }

    hak_ngx_blocks_end(&pool->hak);
    hak_free(pool);
}


void *
ngx_hak_palloc(ngx_hak_pool_t *pool, size_t size)
{
    void  *p;

    p = hak_ngx_blocks_alloc(&pool->hak, size);
    if (p == NULL) {
        ngx_hak_pool_failed(pool, "ngx_hak_palloc", size);
    }

    return p;
}


void *
ngx_hak_pcalloc(ngx_hak_pool_t *pool, size_t size)
{
    void  *p;

    p = hak_ngx_blocks_calloc(&pool->hak, size);
    if (p == NULL) {
        ngx_hak_pool_failed(pool, "ngx_hak_pcalloc", size);
    }

    return p;
}


void *
ngx_hak_prealloc(ngx_hak_pool_t *pool, void *p, size_t size)
{
    void  *new;

    new = hak_ngx_blocks_realloc(&pool->hak, p, size);
    if (new == NULL && ngx_errno != NGX_EINVAL) {
        ngx_hak_pool_failed(pool, "ngx_hak_prealloc", size);
    }

    return new;
}


ngx_int_t
ngx_hak_pfree(ngx_hak_pool_t *pool, void *p)
{
    return hak_ngx_blocks_free(&pool->hak, p) ? NGX_OK : NGX_DECLINED;
}


size_t
ngx_hak_pool_limit(ngx_hak_pool_t *pool, size_t limit)
{
    pool->warned = 0;

    return hak_ngx_blocks_limit(&pool->hak, limit);
}


ngx_int_t
ngx_hak_pool_stats(ngx_hak_pool_t *pool, ngx_hak_pool_stats_t *stats)
{
    if (stats->size != sizeof(ngx_hak_pool_stats_t)) {
        ngx_set_errno(NGX_EINVAL);
        return NGX_ERROR;
    }

    stats->limit = pool->hak.limit == SIZE_MAX ? 0 : pool->hak.limit;
    stats->live_bytes = hak_ngx_blocks_live(&pool->hak);
    stats->held_bytes = hak_ngx_blocks_held(&pool->hak);
    stats->allocs = pool->hak.allocs;
    stats->frees = pool->hak.frees;
    stats->limit_refusals = pool->hak.limit_refusals;

    return NGX_OK;
}


size_t
ngx_hak_pool_trim(ngx_hak_pool_t *pool)
{
    return hak_ngx_blocks_trim(&pool->hak);
}


/* Logs why there is no block; errno stays ENOMEM. */

static void
ngx_hak_pool_failed(ngx_hak_pool_t *pool, const char *func, size_t size)
{
    ngx_log_t  *log;

    log = ngx_hak_pool_log(pool->parent);

    if (!pool->hak.at_limit) {
        ngx_log_error(NGX_LOG_EMERG, log, NGX_ENOMEM,
                      "%s(%uz) failed, pool \"%s\"",
                      func, size, pool->hak.name);

    } else if (!pool->warned) {
        pool->warned = 1;
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "%s(%uz) refused: pool \"%s\" holds %uz bytes of at "
                      "most %uz; free some or raise its limit",
                      func, size, pool->hak.name,
                      hak_ngx_blocks_live(&pool->hak), pool->hak.limit);
    }

    ngx_set_errno(NGX_ENOMEM);
}


static ngx_log_t *
ngx_hak_pool_log(ngx_pool_t *parent)
{
    return parent != NULL ? parent->log : ngx_cycle->log;
}
