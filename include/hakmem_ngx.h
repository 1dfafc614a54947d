/*
 * hakmem_ngx.h - pools for nginx modules, whose small objects can be freed.
 *
 *     pool = ngx_hak_pool_create(c->pool, NULL);
 *     ...
 *     var = ngx_hak_palloc(pool, sizeof(my_var_t) + len);
 *     ...
 *     var = ngx_hak_prealloc(pool, var, sizeof(my_var_t) + longer);
 *     ...
 *     ngx_hak_pfree(pool, var);
 *
 * ngx_palloc's memory comes back when its pool is destroyed, and ngx_pfree
 * frees large blocks alone. That is right for a request and wrong for what
 * lives long and changes: a websocket, an event stream, a stream filter, a
 * table of variables that a script sets over and over. A pool of these
 * functions frees and resizes every block. It is bound to an nginx pool, its
 * parent, and is destroyed with it, with all blocks still in use.
 *
 * The functions are exported by ngx_http_hakmem_module.so. nginx loads modules
 * with their symbols global, in the order of the configuration, so a module
 * that calls them is loaded after it:
 *
 *     load_module modules/ngx_http_hakmem_module.so;
 *     load_module modules/ngx_http_my_module.so;
 *
 * In the other order, or without the first line, nginx does not start:
 * "dlopen() ... failed (... undefined symbol: ngx_hak_...)". They work
 * wherever module code runs, in the master and in workers, and with `hakmem
 * off;` as well. A pool that was made in the master is in each worker a copy
 * of its own from the fork on, as all other memory.
 *
 * A pool is used by one thread at a time, which need not be the one that made
 * it; the parent is touched by ngx_hak_pool_create and ngx_hak_pool_destroy
 * alone. Every pointer returned is 16-byte aligned. What HAKMEM has no memory
 * for, having no address range, comes from the system's malloc
 * and is freed by the same calls.
 */


#ifndef _HAKMEM_NGX_H_INCLUDED_
#define _HAKMEM_NGX_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#ifdef __cplusplus
extern "C" {
#endif


/* ---- making and destroying ---------------------------------------------- */

/* A pool, and how it is to be. */

typedef struct ngx_hak_pool_s  ngx_hak_pool_t;

typedef struct {
    size_t       size;   /* sizeof(ngx_hak_pool_config_t): later ones grow */
    size_t       limit;  /* bytes in blocks at a time, 0: no limit */
    const char  *name;   /* for log lines, 31 bytes are kept; or NULL */
} ngx_hak_pool_config_t;

/*
 * Makes a pool that is destroyed with `parent`, by a cleanup handler
 * (ngx_pool_cleanup_add). Cleanup handlers run last added first: those that
 * were added after the pool was made may still use it. `config` may be NULL:
 * no limit, no name. An empty pool is 128 bytes.
 *
 * `parent` may be NULL: the caller then ends the pool with
 * ngx_hak_pool_destroy. It must be so if the parent is to be emptied by
 * ngx_reset_pool, which runs no cleanup handlers and gives their records'
 * memory away: destroy the pool before.
 *
 * Errors: NULL, after a line in the log of `parent` (NULL: the cycle's); errno
 * is ENOMEM, or EINVAL for a config->size that is not this version's.
 */
ngx_hak_pool_t *ngx_hak_pool_create(ngx_pool_t *parent,
    const ngx_hak_pool_config_t *config);

/*
 * Frees every block of the pool and the pool, before its parent does. That
 * takes time for the pool's slabs of 64 KB, not for its blocks, and for at
 * most 64 blocks besides. NULL does nothing. A long-lived parent does not grow
 * if pools of it are made and destroyed over and over.
 */
void ngx_hak_pool_destroy(ngx_hak_pool_t *pool);

/* ---- blocks ------------------------------------------------------------- */

/*
 * `size` bytes, uninitialised or all zero. Size 0 is a block of the smallest
 * size, with an address of its own. Errors: NULL, errno ENOMEM: no memory,
 * after an [emerg] line in the log, as from ngx_palloc; or the pool's limit
 * would be exceeded, after an [error] line, the first time.
 */
void *ngx_hak_palloc(ngx_hak_pool_t *pool, size_t size);
void *ngx_hak_pcalloc(ngx_hak_pool_t *pool, size_t size);

/*
 * Resizes `p`, keeping min(old, new) bytes; the address may change, the old
 * one is then free. NULL for `p` is ngx_hak_palloc(pool, size); size 0 keeps a
 * block of the smallest size. To get smaller never fails. Errors: NULL, `p` is
 * as it was; errno ENOMEM as above, or EINVAL: `p` is not a block of this
 * pool.
 */
void *ngx_hak_prealloc(ngx_hak_pool_t *pool, void *p, size_t size);

/*
 * Frees `p`. Returns NGX_OK, or NGX_DECLINED if it is not a block of this
 * pool: NULL, a block of ngx_palloc's or of another pool. That is no error,
 * nothing is done. What was freed already must not be passed: where that can
 * be seen the process ends with a line that names the address.
 */
ngx_int_t ngx_hak_pfree(ngx_hak_pool_t *pool, void *p);

/* ---- limit, statistics, memory back ------------------------------------- */

/*
 * Sets the limit (0: none) and returns the one before. A limit below what is
 * in use refuses whatever makes it more.
 */
size_t ngx_hak_pool_limit(ngx_hak_pool_t *pool, size_t limit);

typedef struct {
    size_t    size;     /* set to sizeof(ngx_hak_pool_stats_t) before */
    size_t    limit;    /* 0: none */

    /* bytes in blocks, rounded up to whole blocks; live: deprecated */
    union { size_t  live_bytes, live; };

    /* bytes in slabs that are this pool's; 0: small; held: deprecated */
    union { size_t  held_bytes, held; };

    uint64_t  allocs;   /* blocks given out */
    uint64_t  frees;    /* blocks freed; allocs less these are in use */

    /* requests that the limit refused; the other two names: deprecated */
    union { uint64_t  limit_refusals, limit_refused, refused; };
} ngx_hak_pool_stats_t;

/* Fills *stats. NGX_OK, or NGX_ERROR with EINVAL if stats->size is wrong. */
ngx_int_t ngx_hak_pool_stats(ngx_hak_pool_t *pool,
    ngx_hak_pool_stats_t *stats);

/*
 * Gives the memory that the pool has but does not need back to the system, and
 * what the process has idle besides, as hak_trim does. Returns the bytes. For
 * after a peak: it takes tens of microseconds and more.
 */
size_t ngx_hak_pool_trim(ngx_hak_pool_t *pool);


#ifdef __cplusplus
}
#endif


#endif /* _HAKMEM_NGX_H_INCLUDED_ */
