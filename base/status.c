/* base/status.c -- status names, exit codes, and the last error of each thread. */
#include "base/status.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_MESSAGE = 1024, MAX_WHERE = 128 };

static _Thread_local char last_message[MAX_MESSAGE];
static _Thread_local char last_where[MAX_WHERE];

#define STATUS_NAME(name, exit_code, meaning)    [name] = #name,
#define STATUS_MEANING(name, exit_code, meaning) [name] = meaning,
#define STATUS_EXIT(name, exit_code, meaning)    [name] = exit_code,

static const char *const status_names[TV_NUM_STATUS] = {TV_STATUS_LIST(STATUS_NAME)};
static const char *const status_meanings[TV_NUM_STATUS] = {TV_STATUS_LIST(STATUS_MEANING)};
static const int status_exit_codes[TV_NUM_STATUS] = {TV_STATUS_LIST(STATUS_EXIT)};

static int is_known(tv_status_t status)
{
    return (unsigned)status < TV_NUM_STATUS;
}

const char *tv_status_name(tv_status_t status)
{
    return is_known(status) ? status_names[status] : "unknown status";
}

const char *tv_status_meaning(tv_status_t status)
{
    return is_known(status) ? status_meanings[status] : "unknown status";
}

int tv_status_exit_code(tv_status_t status)
{
    return is_known(status) ? status_exit_codes[status] : 1;
}

void tv_error_set(const char *file, int line, const char *format, ...)
{
    char message[MAX_MESSAGE]; /* the arguments may be the last message itself */
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    memcpy(last_message, message, sizeof(message));
    snprintf(last_where, sizeof(last_where), "%s:%d", file, line);
}

const char *tv_error_message(void)
{
    return last_message;
}

const char *tv_error_where(void)
{
    return last_where;
}
