
/*
 * timer.c - the worker's timer: idle memory goes back, the limit is looked at,
 * objects that were loaded meanwhile are served, the status page gets its
 * statistics.
 *
 * All of that follows from what the worker does, so a sleeping worker needs no
 * timer. We intercept the function in which it waits for events:
 *
 *     asleep --the wait ends--> awake, the timer is set
 *     awake --the timer, something has changed or is due--> awake, set again
 *     awake --the timer, nothing has changed since the last--> asleep
 *
 * There is one timer for everything: when the wait ends because of it, it is
 * still set, which distinguishes this from all other reasons. It does not keep
 * a worker from exiting.
 */


#include <status/status.h>
#include <ngx_event.h>
#include <patch/patch.h>
#include <profile/profile.h>


#define NGX_HAKMEM_TICK  1000


static ngx_int_t ngx_hakmem_wait(ngx_cycle_t *cycle, ngx_msec_t timer,
    ngx_uint_t flags);
static void ngx_hakmem_awake(void);
static void ngx_hakmem_timer(ngx_event_t *ev);
static ngx_uint_t ngx_hakmem_tick(ngx_cycle_t *cycle);
static ngx_msec_t ngx_hakmem_interval(void);


static ngx_connection_t   ngx_hakmem_dumb;
static ngx_event_t        ngx_hakmem_event;

/* nginx's wait for events, once we intercept it */

static ngx_hakmem_wait_pt  ngx_hakmem_waits;


void
ngx_hakmem_timer_start(ngx_cycle_t *cycle)
{
    if (ngx_hakmem_waits == NULL) {

        ngx_hakmem_dumb.fd = (ngx_socket_t) -1;

        ngx_hakmem_event.handler = ngx_hakmem_timer;
        ngx_hakmem_event.data = &ngx_hakmem_dumb;
        ngx_hakmem_event.cancelable = 1;

        ngx_hakmem_waits = ngx_event_actions.process_events;
        ngx_event_actions.process_events = ngx_hakmem_wait;
    }

    ngx_hakmem_event.log = cycle->log;

    /* due at once: the worker's state is known when all modules are ready */

    ngx_add_timer(&ngx_hakmem_event, 1);
}


static ngx_int_t
ngx_hakmem_wait(ngx_cycle_t *cycle, ngx_msec_t timer, ngx_uint_t flags)
{
    ngx_int_t  rc;

    rc = ngx_hakmem_scenes_wait(ngx_hakmem_waits, cycle, timer, flags);

    if (!ngx_hakmem_event.timer_set) {
        ngx_hakmem_awake();
    }

    return rc;
}


/*
 * A process without a master may have another configuration now, perhaps
 * without our module, and then without the status page's zone.
 */

static void
ngx_hakmem_awake(void)
{
    if (!ngx_hakmem_is_loaded((ngx_cycle_t *) ngx_cycle)) {
        ngx_hakmem_record_forget();
        ngx_hakmem_scenes_end();
        return;
    }

    ngx_hakmem_record_asleep(0);

    ngx_add_timer(&ngx_hakmem_event, ngx_hakmem_interval());
}


static void
ngx_hakmem_timer(ngx_event_t *ev)
{
    ngx_cycle_t  *cycle;

    cycle = (ngx_cycle_t *) ngx_cycle;

    if (!ngx_hakmem_is_loaded(cycle)) {
        ngx_hakmem_record_forget();
        ngx_hakmem_scenes_end();
        return;
    }

    ev->log = cycle->log;

    if (ngx_hakmem_tick(cycle)) {
        ngx_add_timer(ev, ngx_hakmem_interval());

    } else {
        ngx_hakmem_record_asleep(1);
    }
}


/* whether another one is needed even if nothing happens */

static ngx_uint_t
ngx_hakmem_tick(ngx_cycle_t *cycle)
{
    ngx_uint_t          due;
    ngx_hakmem_conf_t  *hcf;

    hcf = ngx_hakmem_get_conf(cycle);

    if (ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {

        if (hak_ngx_loaded_since()) {
            ngx_hakmem_serve(cycle, hcf);

        } else {
            hak_ngx_catch_up();
        }
    }

    due = ngx_hakmem_lua_look(hcf, cycle->log);
    due |= ngx_hakmem_trims(cycle) ? ngx_hakmem_trim_look(hcf) : 0;

    if (hcf->limit) {
        ngx_hakmem_trim_limit(hcf, cycle->log);
    }

    ngx_hakmem_record_publish();

    return due;
}


/* the status page's statistics should be at most a second old */

static ngx_msec_t
ngx_hakmem_interval(void)
{
    ngx_hakmem_conf_t  *hcf;

    hcf = ngx_hakmem_get_conf(ngx_cycle);

    return hcf->trim ? ngx_min(ngx_hakmem_trim_interval(hcf), NGX_HAKMEM_TICK)
                     : NGX_HAKMEM_TICK;
}
