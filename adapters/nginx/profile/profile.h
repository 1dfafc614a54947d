
/*
 * profile.h - profiles of a worker: what it is about when it allocates, the
 * sampling, and the page.
 *
 * nginx keeps no note of the request that it works on. So while the worker is
 * sampled, and only then, we stand in four places where it is known, and each
 * makes a *scene* for as long as nginx is in there:
 *
 *     the checkers of the phase engine     the request, the phase
 *     the handlers of the log phase        the request, "log"
 *     the top header and body filters      the request, "output", if it is not
 *                                          in a phase meanwhile
 *     an event that is processed           its connection
 *
 * For the fourth the wait for events only posts them (NGX_POST_EVENTS, as under
 * accept_mutex), and we process what it has posted. The request that an event
 * is for is looked up only when a sample is taken: it is one of those that we
 * have seen in a phase, with that connection, "client", or one to an upstream,
 * "upstream". Everything else is told as "event": timers, the reading of a
 * header, TLS handshakes, other modules' connections, and all events while
 * nginx itself posts them (accept_mutex).
 *
 * Invariants:
 *   - the request of a scene, or of those seen, is alive: a cleanup handler of
 *     its pool takes it out of all places, in use or not, before it goes. (A
 *     scene may outlive its request: nginx frees it in the middle of a phase.)
 *   - scenes are places of an array, not of the stack: code that leaves them by
 *     a jump leaves nothing that dangles, and the next event starts anew;
 *   - what we replace is restored when the sampling ends: it costs nothing then;
 *   - a connection is known by its place among the worker's events, never by
 *     what an event's data may be.
 */


#ifndef _NGX_HAKMEM_PROFILE_H_INCLUDED_
#define _NGX_HAKMEM_PROFILE_H_INCLUDED_


#include <module/module.h>
#include <ngx_event.h>


/* hooks.c: scenes are told, or not any longer; the wait for events */

void ngx_hakmem_scenes_begin(ngx_cycle_t *cycle, ngx_uint_t requests);
void ngx_hakmem_scenes_end(void);

typedef ngx_int_t (*ngx_hakmem_wait_pt)(ngx_cycle_t *cycle, ngx_msec_t timer,
    ngx_uint_t flags);

ngx_int_t ngx_hakmem_scenes_wait(ngx_hakmem_wait_pt wait, ngx_cycle_t *cycle,
    ngx_msec_t timer, ngx_uint_t flags);


/*
 * sampling.c: a worker's own, as the configuration or the environment want it,
 * until it ends; rate() tells whether it is on, set() switches it, also in a preloaded library
 */

void ngx_hakmem_sampling_begin(ngx_cycle_t *cycle);
void ngx_hakmem_sampling_end(ngx_cycle_t *cycle);
size_t ngx_hakmem_sampling_rate(void);
ngx_int_t ngx_hakmem_sampling_set(ngx_cycle_t *cycle, size_t rate);
char *ngx_hakmem_profile_rate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* page.c: `hakmem_profile`; the field at cmd->offset is its HAK_PROFILE_ form */

char *ngx_http_hakmem_profile(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/*
 * wish.c: what the arguments of a request for the page ask for; NGX_ERROR: one
 * is wrong, and `why` says so
 */

typedef struct {
    ngx_int_t    format;                 /* HAK_PROFILE_PPROF ... */
    ngx_uint_t   flags;                  /* HAK_PROFILE_ALLOCATED */
    ngx_uint_t   seconds;                /* 0: what there is now */
    size_t       rate;                   /* 0: not given */
    ngx_int_t    worker;                 /* a pid; 0: any */
    ngx_str_t    why;
} ngx_hakmem_wish_t;

ngx_int_t ngx_hakmem_wish_read(ngx_str_t *args, ngx_pool_t *pool,
    ngx_hakmem_wish_t *wish);

extern ngx_conf_enum_t  ngx_hakmem_wish_formats[];

#define NGX_HAKMEM_WISH_FORMATS                                               \
    "\"html\", \"pprof\", \"collapsed\" or \"speedscope\""


/* bytes a sample: 0, or more than nginx's own mistakes would be */

#define NGX_HAKMEM_RATE_MAX    (1024 * 1024 * 1024)

ssize_t ngx_hakmem_rate_parse(ngx_str_t *value);


#endif /* _NGX_HAKMEM_PROFILE_H_INCLUDED_ */
