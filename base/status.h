/* base/status.h -- what a function of trivet returns, and how it says what went wrong.
 *
 * The function that first decides that something is an error writes the sentence with TV_ERR;
 * callers only pass the status on with TV_TRY. The sentence is kept per thread (a rank is a process
 * or a thread) and printed once, by the program: library code never writes to the terminal on its
 * own, exits or aborts.
 *
 * An error is either common (every rank reaches the same verdict from the same configuration) or
 * local (a file, the memory of one machine). tv_comm_agree (mesh/comm.h) turns a local error before
 * training into a common one. */
#ifndef TV_BASE_STATUS_H
#define TV_BASE_STATUS_H

#ifdef __cplusplus
#define TV_BEGIN_C extern "C" {
#define TV_END_C   }
#else
#define TV_BEGIN_C
#define TV_END_C
#endif

#define TV_MUST_CHECK        __attribute__((warn_unused_result))
#define TV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

TV_BEGIN_C

/* X(name, exit code of the program, meaning) */
#define TV_STATUS_LIST(X)                                                                          \
    X(TV_OK, 0, "done")                                                                            \
    X(TV_INVALID, 2, "refused configuration")                                                      \
    X(TV_UNSUPPORTED, 2, "not supported by this build or device")                                  \
    X(TV_BAD_FILE, 3, "bad input file")                                                            \
    X(TV_NUMERIC, 4, "non-finite numbers")                                                         \
    X(TV_PEER, 5, "a peer failed or a deadline passed")                                            \
    X(TV_NO_MEMORY, 1, "out of memory")                                                            \
    X(TV_IO, 1, "a write failed")                                                                  \
    X(TV_INTERNAL, 1, "a fault of trivet")                                                         \
    X(TV_STOPPED, 75, "stopped by a signal")

typedef enum {
#define TV_STATUS_ENUM(name, exit_code, meaning) name,
    TV_STATUS_LIST(TV_STATUS_ENUM)
#undef TV_STATUS_ENUM
        TV_NUM_STATUS
} tv_status_t;

const char *tv_status_name(tv_status_t status);    /* "TV_INVALID" */
const char *tv_status_meaning(tv_status_t status); /* "refused configuration" */
int tv_status_exit_code(tv_status_t status);       /* DESIGN: 0, 1, 2, 3, 4, 5 or 75 */

/* Keep the formatted sentence as this thread's last error. */
void tv_error_set(const char *file, int line, const char *format, ...) TV_PRINTF(3, 4);
/* The status as it is: what TV_ERR returns, plain to compilers and analyzers. */
static inline tv_status_t tv_error_pass(tv_status_t status)
{
    return status;
}
/* This thread's last error: the sentence, and where it was decided ("mesh/mesh.c:41"). Never NULL;
 * "" when none. Borrowed; valid until this thread's next error. */
const char *tv_error_message(void);
const char *tv_error_where(void);

/* return TV_ERR(TV_INVALID, "heads=%d is not a multiple of tensor=%d", heads, tensor); */
#define TV_ERR(status, ...) (tv_error_set(__FILE__, __LINE__, __VA_ARGS__), tv_error_pass(status))

#define TV_TRY(expression)                                                                         \
    do {                                                                                           \
        const tv_status_t tv_try_status = (expression);                                            \
        if (tv_try_status != TV_OK)                                                                \
            return tv_try_status;                                                                  \
    } while (0)

TV_END_C
#endif
