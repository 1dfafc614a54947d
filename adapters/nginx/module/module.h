
/*
 * module.h - what the module's files share.
 *
 * One shared object contains two modules: ngx_hakmem_module, a core module with
 * the directives of the main context and the work of workers, which needs no
 * http{}; and ngx_http_hakmem_module with the status page and the variable.
 */


#ifndef _NGX_HAKMEM_MODULE_H_INCLUDED_
#define _NGX_HAKMEM_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <hakmem.h>


typedef struct {
    ngx_flag_t       enable;
    ngx_uint_t       require;            /* "hakmem on require", and where: */
    ngx_str_t        require_file;
    ngx_uint_t       require_line;
    ngx_uint_t       mode;               /* NGX_HAKMEM_MODULE or _PRELOAD */
    ngx_uint_t       lanes;              /* hak_ngx_lanes */
    ngx_msec_t       trim;               /* 0: off */
    size_t           limit;              /* 0: none */
    size_t           lua_limit;          /* 0: none */
    size_t           lua_soft;           /* unset: three quarters of it */
    size_t           profile_rate;       /* 0: off; unset: as it was found */
    ngx_uint_t       profile_requests;   /* unsigned  profile_requests:1; */
    ngx_array_t     *objects;            /* of ngx_hakmem_object_t */
} ngx_hakmem_conf_t;


/* a name in hakmem_objects, and where it stands */

typedef struct {
    ngx_str_t        name;
    ngx_str_t        file;
    ngx_uint_t       line;
} ngx_hakmem_object_t;


/* who serves the allocations of the configured objects */

typedef enum {
    NGX_HAKMEM_SYSTEM = 0,     /* the system allocator */
    NGX_HAKMEM_MODULE,         /* the module, by their slots */
    NGX_HAKMEM_PRELOAD         /* a preloaded libhakmem.so, for all objects */
} ngx_hakmem_state_e;


#define NGX_HAKMEM_TEXT_LEN  512


/* what a process reports about itself besides the core's statistics */

typedef struct {
    ngx_hakmem_state_e   state;

    /* served: which objects, and which not; not served: why, and what to do */
    char                 text[NGX_HAKMEM_TEXT_LEN];

    /* configured objects that are not served although others are */
    ngx_uint_t           left_out;

    uint64_t             trims;          /* times idle memory was given back */
    uint64_t             trimmed;        /* bytes of ours that went back */
    uint64_t             limit_hits;     /* times it was over hakmem_limit */
    size_t               lua_limit;      /* of its Lua VM, 0: none */
} ngx_hakmem_worker_t;


extern ngx_hakmem_worker_t  ngx_hakmem_worker;

extern ngx_module_t  ngx_hakmem_module;
extern ngx_module_t  ngx_http_hakmem_module;


/*
 * module.c: what a worker does to be served; whether a cycle has our module;
 * and NGX_CONF_ERROR, after an error line, if a directive has the wrong number
 * of arguments
 */

void ngx_hakmem_begin(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);
ngx_uint_t ngx_hakmem_is_loaded(ngx_cycle_t *cycle);
char *ngx_hakmem_takes(ngx_conf_t *cf, ngx_uint_t least, ngx_uint_t most,
    const char *allowed);


/* serve.c: objects of the configuration, and their slots */

char *ngx_hakmem_check_objects(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);
void ngx_hakmem_serve(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);

/* this worker is not served: one line in the log, and worker.text */

void ngx_hakmem_not_served(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    const char *why, const char *advice);


/* master.c: frees by address where the configuration is read */

void ngx_hakmem_master_begin(void);
void ngx_hakmem_master_undo(void);


/* candidates.c: the names that hakmem_objects may have now */

u_char *ngx_hakmem_loaded(u_char *buf, u_char *last);


/*
 * outlook.c: tries, in a short-lived process, whether workers will be served,
 * before there are any. For `nginx -t`, which reports the result, and for
 * "hakmem on require", for which it is an error if they won't be.
 */

char *ngx_hakmem_outlook(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);


/*
 * file.c: a master loads the module's file only once, whatever is installed
 * later; and a library is preloaded only once. watch() remembers the file of an
 * address when first called for it; check() compares all of them with the
 * present files and returns the first that differs; report() logs it. Workers
 * inherit what the master remembers.
 */

typedef enum {
    NGX_HAKMEM_FILE_SAME = 0,  /* or nothing is known about it */
    NGX_HAKMEM_FILE_REPLACED,
    NGX_HAKMEM_FILE_GONE
} ngx_hakmem_file_e;

void ngx_hakmem_file_watch(void *address);
ngx_hakmem_file_e ngx_hakmem_file_check(const char **path);
void ngx_hakmem_file_report(ngx_cycle_t *cycle);


/*
 * reload.c: the master gives back what a configuration leaves behind; begin()
 * is called when one is about to be read, end() afterwards
 */

ngx_int_t ngx_hakmem_reload_begin(ngx_cycle_t *cycle);
void ngx_hakmem_reload_end(void);


/*
 * timer.c: the worker's timer. Whoever needs it calls start(); from then on it
 * runs while there is something to do.
 */

void ngx_hakmem_timer_start(ngx_cycle_t *cycle);


/*
 * trim.c: whether processes of a cycle give memory back; a look at what is
 * free, after the given milliseconds, which returns whether there should be
 * another one; and a look at the limit
 */

ngx_uint_t ngx_hakmem_trims(ngx_cycle_t *cycle);
void ngx_hakmem_trim_start(void);
ngx_msec_t ngx_hakmem_trim_interval(ngx_hakmem_conf_t *hcf);
ngx_uint_t ngx_hakmem_trim_look(ngx_hakmem_conf_t *hcf);
void ngx_hakmem_trim_limit(ngx_hakmem_conf_t *hcf, ngx_log_t *log);


/*
 * lua.c: the directive hakmem_lua_limit; the heaps of Lua's VMs, from before
 * http{}'s other modules make them, and with the limit at the end of the
 * configuration; and a look at them from the worker's timer, which returns
 * whether there should be another one
 */

char *ngx_hakmem_lua_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_hakmem_lua_begin(ngx_hakmem_conf_t *hcf);
void ngx_hakmem_lua_init(ngx_hakmem_conf_t *hcf);
ngx_uint_t ngx_hakmem_lua_look(ngx_hakmem_conf_t *hcf, ngx_log_t *log);


/* preload.c: the directive, and what a start and a worker do about it */

char *ngx_hakmem_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_hakmem_mode_init(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf);
ngx_int_t ngx_hakmem_mode_init_process(ngx_cycle_t *cycle,
    ngx_hakmem_conf_t *hcf);

ngx_uint_t ngx_hakmem_is_preloaded(void);

/* whether a core serves this process, by the module or preloaded */

ngx_uint_t ngx_hakmem_has_core(void);

/* as hak_stats() and hak_trim(), of the core that serves this process */

int ngx_hakmem_stats(hak_stats_t *stats);
size_t ngx_hakmem_core_trim(void);

/* hak_profile_..., of that core; NULL: a preloaded library that has none */

typedef struct {
    int      (*start)(size_t rate);
    void     (*stop)(void);
    size_t   (*rate)(void);
    void     (*mark)(void);
    int      (*write_fd)(int fd, int format, unsigned flags);
} ngx_hakmem_profiler_t;

ngx_hakmem_profiler_t *ngx_hakmem_profiler(void);

/* as hak_seal(), of a preloaded library, if there is one */

void ngx_hakmem_core_seal(void);

/*
 * what the lanes hold besides blocks in use; what is free and resident, in no
 * lane
 */

size_t ngx_hakmem_free_bytes(hak_stats_t *stats);
size_t ngx_hakmem_due_bytes(hak_stats_t *stats);

/* bytes of this process that are resident, and those of files among them */

ngx_int_t ngx_hakmem_resident(size_t *all, size_t *shared);


#define ngx_hakmem_get_conf(cycle)                                            \
    ((ngx_hakmem_conf_t *) ngx_get_conf((cycle)->conf_ctx, ngx_hakmem_module))


#endif /* _NGX_HAKMEM_MODULE_H_INCLUDED_ */
