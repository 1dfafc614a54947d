
/*
 * ngx_hakmem.h - what the module's files share.
 *
 * One shared object has two modules: ngx_hakmem_module, a core module with the
 * directives of the main context and the workers' work, which needs no http{},
 * and ngx_http_hakmem_module with the status page and the variable.
 */


#ifndef _NGX_HAKMEM_H_INCLUDED_
#define _NGX_HAKMEM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <hakmem.h>


typedef struct {
    ngx_flag_t       enable;
    ngx_uint_t       mode;               /* NGX_HAKMEM_MODULE or _PRELOAD */
    ngx_uint_t       lanes;              /* hak_ngx_lanes */
    ngx_msec_t       trim;               /* 0: off */
    size_t           limit;              /* 0: none */
    ngx_array_t     *objects;            /* of ngx_hakmem_object_t */
} ngx_hakmem_conf_t;


/* a name that stands in hakmem_objects, and where */

typedef struct {
    ngx_str_t        name;
    ngx_str_t        file;
    ngx_uint_t       line;
} ngx_hakmem_object_t;


/* who serves the allocations of the objects that the module is to serve */

typedef enum {
    NGX_HAKMEM_SYSTEM = 0,     /* the system allocator; worker.why */
    NGX_HAKMEM_MODULE,         /* the module, by their slots */
    NGX_HAKMEM_PRELOAD         /* a preloaded libhakmem.so, and of all others */
} ngx_hakmem_state_e;


/* what a process tells of itself besides the core's figures */

typedef struct {
    ngx_hakmem_state_e   state;
    char                 why[128];       /* not served: for what reason */

    uint64_t             trims;          /* times idle memory was given back */
    uint64_t             trimmed;        /* bytes of ours that went back */
    uint64_t             limit_hits;     /* times it was over hakmem_limit */
} ngx_hakmem_worker_t;


extern ngx_hakmem_worker_t  ngx_hakmem_worker;

extern ngx_module_t  ngx_hakmem_module;
extern ngx_module_t  ngx_http_hakmem_module;


/* ngx_hakmem_serve.c: objects of the configuration, and their slots */

char *ngx_hakmem_check_objects(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);
void ngx_hakmem_serve(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);


/* ngx_hakmem_trim.c: the worker's timer */

void ngx_hakmem_trim_start(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);


/* ngx_hakmem_preload.c: the directive, what a start and a worker make of it */

char *ngx_hakmem_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_hakmem_mode_init(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);
ngx_int_t ngx_hakmem_mode_init_process(ngx_cycle_t *cycle,
    ngx_hakmem_conf_t *hcf);

/* as hak_stats(), of the core that serves this process */
int ngx_hakmem_stats(hak_stats_t *stats);

/* bytes of this process that are resident, and those of files among them */

ngx_int_t ngx_hakmem_resident(size_t *all, size_t *shared);


#define ngx_hakmem_get_conf(cycle)                                            \
    ((ngx_hakmem_conf_t *) ngx_get_conf((cycle)->conf_ctx, ngx_hakmem_module))


#endif /* _NGX_HAKMEM_H_INCLUDED_ */
