/* train/commands.h -- the commands of the program: each takes its own words (argv[0] is the command) and returns the
 * exit code of the process. */
#ifndef TV_TRAIN_COMMANDS_H
#define TV_TRAIN_COMMANDS_H
#include "train/run.h"

TV_BEGIN_C
int tv_command_train(int argc, char **argv);
int tv_command_map(int argc, char **argv);
int tv_command_bench(int argc, char **argv);
int tv_command_bench_step(int argc, char **argv);    /* argv[1] is "step" */
int tv_command_bench_kernels(int argc, char **argv); /* argv[1] is "kernels" */
int tv_command_schedule(int argc, char **argv);
int tv_command_convert(int argc, char **argv);
int tv_command_inspect(int argc, char **argv);
int tv_command_sample(int argc, char **argv);
int tv_command_tokenize(int argc, char **argv);
int tv_command_version(void);

/* What `train --dry-run` prints: mesh, layers, parameters and memory of each stage; text or one JSON object. */
TV_MUST_CHECK tv_status_t tv_dry_run_print(const struct tv_run *run, FILE *out);
TV_END_C
#endif
