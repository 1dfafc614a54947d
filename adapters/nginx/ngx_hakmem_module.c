
/*
 * ngx_hakmem_module.c - the directives of the main context, and what a worker
 * does when it starts and ends.
 */


#include <ngx_hakmem.h>


static void *ngx_hakmem_create_conf(ngx_cycle_t *cycle);
static char *ngx_hakmem_init_conf(ngx_cycle_t *cycle, void *conf);
static ngx_int_t ngx_hakmem_init_process(ngx_cycle_t *cycle);


ngx_hakmem_worker_t  ngx_hakmem_worker;


static ngx_command_t  ngx_hakmem_commands[] = {

    { ngx_string("hakmem"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      0,
      offsetof(ngx_hakmem_conf_t, enable),
      NULL },

    { ngx_string("hakmem_mode"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE12,
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
    NULL,                                  /* init module */
    ngx_hakmem_init_process,               /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
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

    hcf->enable = NGX_CONF_UNSET;

    return hcf;
}


static char *
ngx_hakmem_init_conf(ngx_cycle_t *cycle, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_conf_init_value(hcf->enable, 1);

    ngx_hakmem_mode_init(cycle, hcf);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_hakmem_init_process(ngx_cycle_t *cycle)
{
    if (ngx_hakmem_mode_init_process(cycle, ngx_hakmem_get_conf(cycle))
        == NGX_OK)
    {
        return NGX_OK;
    }

    return NGX_OK;
}
