
/*
 * module.c - the directives of the main context, and what a worker does when it
 * starts and ends.
 */


#include <module/module.h>
#include <patch/patch.h>
#include <profile/profile.h>


static void *ngx_hakmem_create_conf(ngx_cycle_t *cycle);
static char *ngx_hakmem_init_conf(ngx_cycle_t *cycle, void *conf);
static ngx_int_t ngx_hakmem_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_hakmem_init_process(ngx_cycle_t *cycle);
static char *ngx_hakmem_enable(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_hakmem_objects(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_hakmem_lanes(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hakmem_trim(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hakmem_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_hakmem_invalid(ngx_conf_t *cf, ngx_str_t *value,
    const char *allowed);


#define NGX_HAKMEM_TRIM        2000
#define NGX_HAKMEM_TRIM_MIN    100
#define NGX_HAKMEM_LIMIT_MIN   (1024 * 1024)

#define NGX_HAKMEM_MANY        ((ngx_uint_t) -1)


/* what the directives take, for their error messages */

#define NGX_HAKMEM_VALID_ENABLE   "\"on\", \"on require\" or \"off\""
#define NGX_HAKMEM_VALID_OBJECTS  "names of loaded objects, as \"libssl\""
#define NGX_HAKMEM_VALID_LANES    "\"tiny\" or \"all\""
#define NGX_HAKMEM_VALID_TRIM     "\"off\" or a time of at least 100ms"
#define NGX_HAKMEM_VALID_LIMIT    "\"off\" or a size of at least 1m"


ngx_hakmem_worker_t  ngx_hakmem_worker;

static ngx_uint_t    ngx_hakmem_started;   /* this process is served */


/* any number of arguments: the directives report what is wrong themselves */

static ngx_command_t  ngx_hakmem_commands[] = {

    { ngx_string("hakmem"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_enable,
      0,
      0,
      NULL },

    { ngx_string("hakmem_objects"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_objects,
      0,
      0,
      NULL },

    { ngx_string("hakmem_lanes"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_lanes,
      0,
      0,
      NULL },

    { ngx_string("hakmem_trim"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_trim,
      0,
      0,
      NULL },

    { ngx_string("hakmem_limit"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_limit,
      0,
      0,
      NULL },

    { ngx_string("hakmem_lua_limit"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_lua_limit,
      0,
      0,
      NULL },

    { ngx_string("hakmem_profile_rate"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_profile_rate,
      0,
      0,
      NULL },

    { ngx_string("hakmem_mode"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_ANY,
      ngx_hakmem_mode,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_hakmem_module_ctx = {
    ngx_string("hakmem"),
    ngx_hakmem_create_conf,
    ngx_hakmem_init_conf
};


ngx_module_t  ngx_hakmem_module = {
    NGX_MODULE_V1,
    &ngx_hakmem_module_ctx,                /* module context */
    ngx_hakmem_commands,                   /* module directives */
    NGX_CORE_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_hakmem_init_module,                /* init module */
    ngx_hakmem_init_process,               /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_hakmem_sampling_end,               /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_hakmem_create_conf(ngx_cycle_t *cycle)
{
    ngx_hakmem_conf_t  *hcf;

    hcf = ngx_pcalloc(cycle->pool, sizeof(ngx_hakmem_conf_t));
    if (hcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     hcf->mode = 0;
     *     hcf->objects = NULL;
     *     hcf->profile_requests = 0;
     */

    hcf->enable = NGX_CONF_UNSET;
    hcf->lanes = NGX_CONF_UNSET_UINT;
    hcf->trim = NGX_CONF_UNSET_MSEC;
    hcf->limit = NGX_CONF_UNSET_SIZE;
    hcf->lua_limit = NGX_CONF_UNSET_SIZE;
    hcf->lua_soft = NGX_CONF_UNSET_SIZE;
    hcf->profile_rate = NGX_CONF_UNSET_SIZE;

    ngx_hakmem_master_begin();

    if (ngx_hakmem_reload_begin(cycle) != NGX_OK) {
        return NULL;
    }

    return hcf;
}


static char *
ngx_hakmem_init_conf(ngx_cycle_t *cycle, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_conf_init_value(hcf->enable, 1);
    ngx_conf_init_uint_value(hcf->lanes, HAK_NGX_ALL);
    ngx_conf_init_msec_value(hcf->trim, NGX_HAKMEM_TRIM);
    ngx_conf_init_size_value(hcf->limit, 0);
    ngx_hakmem_lua_init(hcf);

    ngx_hakmem_file_watch(&ngx_hakmem_module);

    if (!ngx_is_init_cycle(cycle->old_cycle)) {
        ngx_hakmem_file_report(cycle);
    }

    ngx_hakmem_mode_init(cycle, hcf);

    if (ngx_hakmem_check_objects(cycle, hcf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_hakmem_outlook(cycle, hcf);
}


/*
 * A process without a master has already had its init_process when it reloads:
 * the new configuration may have more objects.
 */

static ngx_int_t
ngx_hakmem_init_module(ngx_cycle_t *cycle)
{
    if (ngx_hakmem_started) {
        ngx_hakmem_serve(cycle, ngx_hakmem_get_conf(cycle));
        ngx_hakmem_sampling_begin(cycle);
    }

    ngx_hakmem_reload_end();

    return NGX_OK;
}


/* the master, the cache manager and the cache loader are not served */

static ngx_int_t
ngx_hakmem_init_process(ngx_cycle_t *cycle)
{
    ngx_hakmem_conf_t  *hcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    hcf = ngx_hakmem_get_conf(cycle);

    ngx_hakmem_begin(cycle, hcf);

    if (hcf->enable || ngx_hakmem_has_core()) {
        ngx_hakmem_trim_start();
        ngx_hakmem_timer_start(cycle);
        ngx_hakmem_sampling_begin(cycle);
    }

    return NGX_OK;
}


void
ngx_hakmem_begin(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    if (ngx_hakmem_mode_init_process(cycle, hcf) == NGX_DECLINED) {
        ngx_hakmem_started = 1;
        ngx_hakmem_serve(cycle, hcf);
    }
}


/*
 * a process without a master may have read a configuration without our module
 */

ngx_uint_t
ngx_hakmem_is_loaded(ngx_cycle_t *cycle)
{
    ngx_uint_t  i;

    for (i = 0; cycle->modules[i]; i++) {
        if (cycle->modules[i] == &ngx_hakmem_module) {
            return 1;
        }
    }

    return 0;
}


static char *
ngx_hakmem_enable(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_str_t  *value = cf->args->elts;

    if (hcf->enable != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 2, NGX_HAKMEM_VALID_ENABLE) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") == 0) {
        hcf->enable = 1;

    } else if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        hcf->enable = 0;

    } else {
        return ngx_hakmem_invalid(cf, &value[1], NGX_HAKMEM_VALID_ENABLE);
    }

    if (cf->args->nelts == 3) {

        if (!hcf->enable || ngx_strcmp(value[2].data, "require") != 0) {
            return ngx_hakmem_invalid(cf, &value[2], NGX_HAKMEM_VALID_ENABLE);
        }

        hcf->require = 1;
        hcf->require_file = cf->conf_file->file.name;
        hcf->require_line = cf->conf_file->line;
    }

    return NGX_CONF_OK;
}


static char *
ngx_hakmem_objects(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_str_t            *value;
    ngx_uint_t            i;
    ngx_hakmem_object_t  *object;

    if (ngx_hakmem_takes(cf, 1, NGX_HAKMEM_MANY, NGX_HAKMEM_VALID_OBJECTS)
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (hcf->objects == NULL) {
        hcf->objects = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_hakmem_object_t));
        if (hcf->objects == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        object = ngx_array_push(hcf->objects);
        if (object == NULL) {
            return NGX_CONF_ERROR;
        }

        object->name = value[i];
        object->file = cf->conf_file->file.name;
        object->line = cf->conf_file->line;
    }

    return NGX_CONF_OK;
}


static char *
ngx_hakmem_lanes(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_str_t  *value = cf->args->elts;

    if (hcf->lanes != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 1, NGX_HAKMEM_VALID_LANES) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[1].data, "tiny") == 0) {
        hcf->lanes = HAK_NGX_TINY;

    } else if (ngx_strcmp(value[1].data, "all") == 0) {
        hcf->lanes = HAK_NGX_ALL;

    } else {
        return ngx_hakmem_invalid(cf, &value[1], NGX_HAKMEM_VALID_LANES);
    }

    return NGX_CONF_OK;
}


static char *
ngx_hakmem_trim(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_int_t   msec;
    ngx_str_t  *value = cf->args->elts;

    if (hcf->trim != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 1, NGX_HAKMEM_VALID_TRIM) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        hcf->trim = 0;
        return NGX_CONF_OK;
    }

    msec = ngx_parse_time(&value[1], 0);

    if (msec == NGX_ERROR || msec < NGX_HAKMEM_TRIM_MIN) {
        return ngx_hakmem_invalid(cf, &value[1], NGX_HAKMEM_VALID_TRIM);
    }

    hcf->trim = (ngx_msec_t) msec;

    return NGX_CONF_OK;
}


static char *
ngx_hakmem_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ssize_t     size;
    ngx_str_t  *value = cf->args->elts;

    if (hcf->limit != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 1, NGX_HAKMEM_VALID_LIMIT) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        hcf->limit = 0;
        return NGX_CONF_OK;
    }

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR || size < NGX_HAKMEM_LIMIT_MIN) {
        return ngx_hakmem_invalid(cf, &value[1], NGX_HAKMEM_VALID_LIMIT);
    }

    hcf->limit = (size_t) size;

    return NGX_CONF_OK;
}


static char *
ngx_hakmem_invalid(ngx_conf_t *cf, ngx_str_t *value, const char *allowed)
{
    ngx_str_t  *name = cf->args->elts;

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\" directive, "
                       "it must be %s", value, name, allowed);

    return NGX_CONF_ERROR;
}


char *
ngx_hakmem_takes(ngx_conf_t *cf, ngx_uint_t least, ngx_uint_t most,
    const char *allowed)
{
    ngx_str_t  *name = cf->args->elts;

    if (cf->args->nelts - 1 >= least && cf->args->nelts - 1 <= most) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid number of arguments in \"%V\" directive, "
                       "it takes %s", name, allowed);

    return NGX_CONF_ERROR;
}
