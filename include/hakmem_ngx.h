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
 * frees large blocks only. That is right for a request but wrong for what lives
 * long and changes: a websocket, an event stream, a stream filter, a table of
 * variables that a script sets over and over. In the pools of this header every
 * block can be freed and resized. A pool is bound to an nginx pool, its parent,
 * and is destroyed with it, along with all blocks still in use.
 *
 * The functions are exported by ngx_http_hakmem_module.so. nginx loads modules
 * with their symbols global, in the order of the configuration, so a module
 * that calls them is loaded after it:
 *
 *     load_module modules/ngx_http_hakmem_module.so;
 *     load_module modules/ngx_http_my_module.so;
 *
 * In the other order, or without the first line, nginx does not start:
 * "dlopen() ... failed (... undefined symbol: ngx_hak_...)". The functions work
 * wherever module code runs, in the master and in workers, even with `hakmem
 * off;`. As with all memory, each worker has its own copy of a pool that was
 * made in the master.
 *
 * A pool is used by one thread at a time, not necessarily the one that made it;
 * only ngx_hak_pool_create and ngx_hak_pool_destroy touch the parent. Every
 * pointer returned is 16-byte aligned. If HAKMEM has no address range, blocks
 * come from the system's malloc and are freed by the same calls.
 */


#ifndef _HAKMEM_NGX_H_INCLUDED_
#define _HAKMEM_NGX_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#ifdef __cplusplus
extern "C" {
#endif


/* ---- making and destroying ---------------------------------------------- */

/* A pool, and its configuration. */

typedef struct ngx_hak_pool_s  ngx_hak_pool_t;

typedef struct {
    size_t       size;   /* sizeof(ngx_hak_pool_config_t), for later versions */
    size_t       limit;  /* most bytes in blocks at a time, 0: no limit */
    const char  *name;   /* for log lines, at most 31 bytes kept; or NULL */
} ngx_hak_pool_config_t;

/*
 * Makes a pool that is destroyed with `parent`, by a cleanup handler
 * (ngx_pool_cleanup_add). Cleanup handlers run in reverse order: those added
 * after the pool was made may still use it. `config` may be NULL: no limit, no
 * name. An empty pool is 128 bytes.
 *
 * `parent` may be NULL: the caller then ends the pool with
 * ngx_hak_pool_destroy. That is necessary if the pool that would be the parent
 * gets emptied by ngx_reset_pool, which runs no cleanup handlers and reuses
 * their records' memory: destroy this pool before that.
 *
 * Errors: NULL, after a line in the log of `parent` (NULL: the cycle's); errno
 * is ENOMEM, or EINVAL if this version does not know config->size.
 */
ngx_hak_pool_t *ngx_hak_pool_create(ngx_pool_t *parent,
    const ngx_hak_pool_config_t *config);

/*
 * Frees the pool and all of its blocks, before its parent would. The time is
 * proportional to the pool's slabs of 64 KB, not to its blocks, apart from at
 * most 64 of them. NULL does nothing. A long-lived parent does not grow when
 * pools are made in it and destroyed over and over.
 */
void ngx_hak_pool_destroy(ngx_hak_pool_t *pool);

/* ---- blocks ------------------------------------------------------------- */

/*
 * Return `size` bytes, uninitialised or all zero. Size 0 gives a block of the
 * smallest size, with an address of its own. Errors: NULL with ENOMEM, if there
 * is no memory (after an [emerg] line in the log, as from ngx_palloc), or if
 * the pool's limit would be exceeded (after an [error] line, the first time).
 */
void *ngx_hak_palloc(ngx_hak_pool_t *pool, size_t size);
void *ngx_hak_pcalloc(ngx_hak_pool_t *pool, size_t size);

/*
 * Resizes `p`, keeping min(old, new) bytes; the address may change, and the old
 * block is then freed. A NULL `p` means ngx_hak_palloc(pool, size); size 0
 * returns a block of the smallest size. Shrinking never fails. Errors: NULL
 * with ENOMEM as above, or with EINVAL if `p` is not a block of this pool; `p`
 * is untouched.
 */
void *ngx_hak_prealloc(ngx_hak_pool_t *pool, void *p, size_t size);

/*
 * Frees `p`. Returns NGX_OK, or NGX_DECLINED if it is not a block of this pool:
 * NULL, a block of ngx_palloc's or of another pool. That is not an error;
 * nothing is done. A block that was freed already must not be passed: where
 * that is noticed the process ends with a line that names the address.
 */
ngx_int_t ngx_hak_pfree(ngx_hak_pool_t *pool, void *p);

/* ---- limit, statistics, memory back ------------------------------------- */

/*
 * Sets the limit (0: none) and returns the previous one. If more than that is
 * in use, every growth is refused.
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
    uint64_t  frees;    /* blocks freed; allocs - frees are in use */

    /* requests that the limit refused; the other two names: deprecated */
    union { uint64_t  limit_refusals, limit_refused, refused; };
} ngx_hak_pool_stats_t;

/* Fills *stats. NGX_OK, or NGX_ERROR with EINVAL if stats->size is wrong. */
ngx_int_t ngx_hak_pool_stats(ngx_hak_pool_t *pool,
    ngx_hak_pool_stats_t *stats);

/*
 * Gives memory that the pool does not need back to the system, and other idle
 * memory of the process too, as hak_trim does. Returns the bytes. Meant for use
 * after a peak: it takes tens of microseconds or more.
 */
size_t ngx_hak_pool_trim(ngx_hak_pool_t *pool);


#ifdef __cplusplus
}
#endif


#endif /* _HAKMEM_NGX_H_INCLUDED_ */
