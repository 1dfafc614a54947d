
/*
 * reload.c - the master gives back what a reload leaves behind.
 *
 * A new configuration is built beside the old one, so a master takes twice its
 * memory for a moment, and the one that ends (the old one, or the new one if it
 * was refused) leaves free memory scattered among the other's. libc gives back
 * only the end of its heap; HAKMEM gives back what has waited for a while, but
 * only while somebody allocates. Nobody does: the master sleeps.
 *
 * So memory is *due* when the pool of a configuration ends, or when one has
 * been read at the start; and it goes back right after that: before the master
 * forks the new workers, which then do not share it, or, if it forks none,
 * before it sleeps. That takes no thread and no timer, and no work at all while
 * nothing is due.
 *
 * With a preloaded libhakmem.so the heap is sealed when a reload begins: the
 * blocks of the new configuration are then in fresh slabs, not in holes among
 * the old one's, so that the old slabs are all free when the old one ends.
 */


#include <module/module.h>
#include <patch/patch.h>

#include <malloc.h>
#include <pthread.h>


#define NGX_HAKMEM_WORTH_SAYING  (1024 * 1024)

/* larger than libc's small bins, smaller than what it maps separately */
#define NGX_HAKMEM_SORTS         (100 * 1024)


static void ngx_hakmem_reload_due(void *data);
static void ngx_hakmem_reload_settle(void);


static ngx_uint_t  ngx_hakmem_due;
static ngx_uint_t  ngx_hakmem_watching;


ngx_int_t
ngx_hakmem_reload_begin(ngx_cycle_t *cycle)
{
    ngx_pool_cleanup_t  *cln;

    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_hakmem_reload_due;

    if (ngx_process == NGX_PROCESS_MASTER) {
        ngx_hakmem_core_seal();
    }

    if (!ngx_hakmem_watching) {
        ngx_hakmem_watching = 1;

        /* if one of the two is missing, memory goes back by the other alone */

        (void) pthread_atfork(ngx_hakmem_reload_settle, NULL, NULL);
        (void) hak_ngx_before_sleep(ngx_hakmem_reload_settle);
    }

    return NGX_OK;
}


void
ngx_hakmem_reload_end(void)
{
    ngx_hakmem_reload_due(NULL);
}


static void
ngx_hakmem_reload_due(void *data)
{
    ngx_hakmem_due = 1;
}


/*
 * Called before each fork and each sleep of the master: the configuration now
 * in effect says whether memory is to go back.
 */

static void
ngx_hakmem_reload_settle(void)
{
    void         *p;
    size_t        before, after, shared;
    ngx_cycle_t  *cycle;

    if (!ngx_hakmem_due || ngx_process != NGX_PROCESS_MASTER) {
        return;
    }

    ngx_hakmem_due = 0;

    cycle = (ngx_cycle_t *) ngx_cycle;

    if (!ngx_hakmem_trims(cycle)
        || ngx_hakmem_resident(&before, &shared) != NGX_OK)
    {
        return;
    }

    (void) ngx_hakmem_core_trim();
    (void) malloc_trim(0);

    /*
     * libc sorts freed pieces at its next larger request, writing to each of
     * them: let it do so here, not in every worker, where each write copies a
     * page
     */

    p = ngx_alloc(NGX_HAKMEM_SORTS, cycle->log);
    if (p) {
        ngx_free(p);
    }

    if (ngx_hakmem_resident(&after, &shared) != NGX_OK
        || before < after + NGX_HAKMEM_WORTH_SAYING)
    {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                  "hakmem: the master gave %uz bytes back, it has %uz",
                  before - after, after);
}
