// Notes how much of each file would survive a power cut: at every fsync and fdatasync that succeeds,
// one line "device inode bytes" is appended to ASKEL_SYNC_FILE. What was written while the call was
// under way is not counted: the size is taken before it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int notes = -1;
static int (*real_fsync)(int) = NULL;
static int (*real_fdatasync)(int) = NULL;

__attribute__((constructor)) static void begin(void) {
  real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  const char *path = getenv("ASKEL_SYNC_FILE");
  if (path != NULL) notes = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int synced(int file, int (*real)(int)) {
  struct stat facts;
  int is_known = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
  int result = real(file);
  if (result == 0 && is_known && notes >= 0) {
    char line[96];
    int length = snprintf(line, sizeof line, "%llu %llu %lld\n", (unsigned long long)facts.st_dev,
                          (unsigned long long)facts.st_ino, (long long)facts.st_size);
    if (write(notes, line, (size_t)length) != length) abort();  // a loss would go unseen
  }
  return result;
}

int fsync(int file) { return synced(file, real_fsync); }

int fdatasync(int file) { return synced(file, real_fdatasync); }
