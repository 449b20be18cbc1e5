/* train/file_faults.h -- what becomes of a rank that reads a mapped file which has lost bytes: cut short by somebody,
 * or on a disk that fails. The system tells with SIGBUS; here that is a sentence with the file's name.
 *
 * Files that are mapped (tv_file_map) are known by their addresses. Inside tv_file_guard the fault is an error like any
 * other; outside it ends the process with the exit code of a bad file. */
#ifndef TV_TRAIN_FILE_FAULTS_H
#define TV_TRAIN_FILE_FAULTS_H
#include "base/status.h"
#include <stddef.h>

TV_BEGIN_C
/* For a program, when it starts and again after MPI has, which may catch it itself; any number of threads. Other
 * faults go where they went before. Errors: TV_INTERNAL. */
TV_MUST_CHECK tv_status_t tv_file_faults_catch(void);

/* Call body, which is left where it is when a fault happens: it must hold no lock, and what it has allocated by then is
 * lost. Within another guard it is the inner one that is left. Errors: those of body; TV_BAD_FILE naming the file. */
TV_MUST_CHECK tv_status_t tv_file_guard(tv_status_t (*body)(void *context), void *context);

/* For tv_file_map: from here on, or no more, `path` is at these addresses. */
void tv_file_faults_add(const char *path, const void *data, size_t bytes);
void tv_file_faults_remove(const void *data);
TV_END_C
#endif
