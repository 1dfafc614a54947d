
/*
 * ngx_hakmem_trim.c - the worker's timer: idle memory goes back, the limit is
 * looked at, objects that were loaded meanwhile are served.
 *
 * The core gives back what has been free for a while, but only as long as
 * there are requests; and libc gives back nothing but the end of its heap. What
 * has been idle for two ticks, and was not so when memory was last given back,
 * is worth a trim: whatever is in use now and then stays. A process that
 * shuts down gives back all it can.
 */


#include <ngx_hakmem.h>
#include <ngx_event.h>
#include <hak_ngx.h>

#include <malloc.h>


#define NGX_HAKMEM_TICK         1000
#define NGX_HAKMEM_IDLE_MIN     (1024 * 1024)
#define NGX_HAKMEM_QUIET        2000          /* allocations in a second */


/* free memory of one allocator, as its last ticks have seen it */

typedef struct {
    size_t               last;
    size_t               low;           /* the least since the last trim */
} ngx_hakmem_idle_t;


static void ngx_hakmem_timer(ngx_event_t *ev);
static void ngx_hakmem_tick(ngx_hakmem_conf_t *hcf);
static void ngx_hakmem_limit(ngx_hakmem_conf_t *hcf, ngx_log_t *log);
static ngx_uint_t ngx_hakmem_is_idle(ngx_hakmem_idle_t *idle, size_t now,
    size_t used);
static void ngx_hakmem_give_back(ngx_uint_t ours, ngx_uint_t libc);
static size_t ngx_hakmem_own(void);


static ngx_connection_t   ngx_hakmem_dumb;
static ngx_event_t        ngx_hakmem_event;

static ngx_hakmem_idle_t  ngx_hakmem_own_idle;
static ngx_hakmem_idle_t  ngx_hakmem_libc_idle;
static uint64_t           ngx_hakmem_allocs;
static ngx_uint_t         ngx_hakmem_over;


void
ngx_hakmem_trim_start(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    struct mallinfo2  info;

    if (!hcf->enable && ngx_hakmem_worker.state == NGX_HAKMEM_SYSTEM) {
        return;
    }

    if (ngx_hakmem_event.timer_set) {
        return;
    }

    info = mallinfo2();
    ngx_hakmem_libc_idle.low = info.fordblks;

    ngx_hakmem_dumb.fd = (ngx_socket_t) -1;

    ngx_hakmem_event.handler = ngx_hakmem_timer;
    ngx_hakmem_event.log = cycle->log;
    ngx_hakmem_event.data = &ngx_hakmem_dumb;
    ngx_hakmem_event.cancelable = 1;

    ngx_add_timer(&ngx_hakmem_event, hcf->trim ? hcf->trim : NGX_HAKMEM_TICK);
}


ngx_uint_t
ngx_hakmem_trims(ngx_cycle_t *cycle)
{
    ngx_hakmem_conf_t  *hcf;

    if (cycle->modules == NULL || !ngx_hakmem_is_loaded(cycle)) {
        return 0;
    }

    hcf = ngx_hakmem_get_conf(cycle);

    return hcf->trim && (hcf->enable || ngx_hakmem_is_preloaded());
}


static void
ngx_hakmem_timer(ngx_event_t *ev)
{
    ngx_cycle_t        *cycle;
    ngx_hakmem_conf_t  *hcf;

    /* a single process may have another configuration now, or not our module */

    cycle = (ngx_cycle_t *) ngx_cycle;

    if (!ngx_hakmem_is_loaded(cycle)) {
        return;
    }

    hcf = ngx_hakmem_get_conf(cycle);
    ev->log = cycle->log;

    if (ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {

        if (hak_ngx_loaded_since()) {
            ngx_hakmem_serve(cycle, hcf);

        } else {
            hak_ngx_catch_up();
        }
    }

    if (hcf->trim) {
        ngx_hakmem_tick(hcf);
    }

    if (hcf->limit) {
        ngx_hakmem_limit(hcf, cycle->log);
    }

    ngx_add_timer(ev, hcf->trim ? hcf->trim : NGX_HAKMEM_TICK);
}


static void
ngx_hakmem_tick(ngx_hakmem_conf_t *hcf)
{
    size_t             held, live;
    uint64_t           allocs;
    ngx_uint_t         ours, libc, quiet;
    hak_stats_t        stats;
    struct mallinfo2   info;

    if (ngx_exiting || ngx_quit) {
        ngx_hakmem_give_back(1, 1);
        return;
    }

    ours = 0;

    if (ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {
        hak_ngx_tick();

        stats.size = sizeof(hak_stats_t);
        (void) hak_stats(&stats);

        allocs = stats.tiny_allocs + stats.pool_allocs + stats.ace_allocs;
        quiet = allocs - ngx_hakmem_allocs
                <= NGX_HAKMEM_QUIET * hcf->trim / 1000;
        ngx_hakmem_allocs = allocs;

        held = stats.tiny_held_bytes + stats.pool_held_bytes
               + stats.ace_held_bytes;
        live = stats.tiny_live_bytes + stats.pool_live_bytes
               + stats.ace_live_bytes;

        ours = ngx_hakmem_is_idle(&ngx_hakmem_own_idle,
                                  held > live ? held - live : 0, live)
               && quiet;
    }

    info = mallinfo2();

    libc = ngx_hakmem_is_idle(&ngx_hakmem_libc_idle, info.fordblks,
                              info.uordblks);

    ngx_hakmem_give_back(ours, libc);
}


/* whether enough is idle for the second time, and was not at the last trim */

static ngx_uint_t
ngx_hakmem_is_idle(ngx_hakmem_idle_t *idle, size_t now, size_t used)
{
    size_t  both;

    both = ngx_min(now, idle->last);

    idle->last = now;
    idle->low = ngx_min(idle->low, now);

    return both > idle->low + ngx_max(NGX_HAKMEM_IDLE_MIN, used / 8);
}


static void
ngx_hakmem_give_back(ngx_uint_t ours, ngx_uint_t libc)
{
    size_t             bytes;
    ngx_uint_t         given;
    hak_stats_t        stats;
    struct mallinfo2   info;

    given = 0;

    if (ours && ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {
        bytes = hak_trim();
        given = bytes != 0;
        ngx_hakmem_worker.trimmed += bytes;

        stats.size = sizeof(hak_stats_t);
        (void) hak_stats(&stats);

        ngx_hakmem_own_idle.low = stats.tiny_held_bytes
                                  + stats.pool_held_bytes
                                  + stats.ace_held_bytes
                                  - stats.tiny_live_bytes
                                  - stats.pool_live_bytes
                                  - stats.ace_live_bytes;
    }

    /* a preloaded libhakmem.so has taken this over, and passes it on */

    if (libc) {
        given |= malloc_trim(0) != 0;

        info = mallinfo2();
        ngx_hakmem_libc_idle.low = info.fordblks;
    }

    ngx_hakmem_worker.trims += given;
}


static void
ngx_hakmem_limit(ngx_hakmem_conf_t *hcf, ngx_log_t *log)
{
    size_t  before, after;

    before = ngx_hakmem_own();

    if (before <= hcf->limit) {
        if (before <= hcf->limit - hcf->limit / 16) {
            ngx_hakmem_over = 0;
        }

        return;
    }

    if (ngx_hakmem_over) {
        return;
    }

    ngx_hakmem_over = 1;
    ngx_hakmem_worker.limit_hits++;

    ngx_hakmem_give_back(1, 1);

    after = ngx_hakmem_own();

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "hakmem: the worker has %uz bytes, more than hakmem_limit "
                  "%uz; %uz after idle memory was given back",
                  before, hcf->limit, after);
}


/* the process's own resident memory, without what it has mapped of files */

static size_t
ngx_hakmem_own(void)
{
    size_t  all, shared;

    if (ngx_hakmem_resident(&all, &shared) != NGX_OK || shared > all) {
        return 0;
    }

    return all - shared;
}
