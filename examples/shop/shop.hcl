# A shop in two services and a job. The front asks the API by its name; the API reads what the job has written.
#
#   basalt up examples/shop
#   curl http://127.0.0.1:8080/

variable "greeting" {
  default     = "Welcome"
  description = "What the front says first: the one line that `make demo` changes."
}

# Both images hold one static program, and the few files that tell it what to do.
image "front" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  copy "front.sh" {
    to   = "/www/cgi-bin/index.cgi"
    mode = "0755"
  }
  file "/greeting" { content = "${var.greeting}\n" }
  file "/www/health" { content = "well\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
}

image "api" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  copy "api.sh" {
    to   = "/www/cgi-bin/index.cgi"
    mode = "0755"
  }
  copy "migrate.sh" {
    to   = "/migrate.sh"
    mode = "0755"
  }
  file "/www/health" { content = "well\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "9000", "-h", "/www"]
}

# Must end well before the API starts.
job "migrate" {
  image   = image.api
  command = ["/bin/busybox", "sh", "/migrate.sh"]
  volume "/data" {
    name   = "stock"
    shared = true
  }
  retries = 2
  timeout = "30s"
}

service "api" {
  image       = image.api
  instances   = 2
  depends_on  = [job.migrate]
  drain       = "5s"
  stop_within = "1s"

  port "http" { container = 9000 }

  volume "/data" {
    name   = "stock"
    shared = true
  }

  limits {
    memory = "64MiB"
    pids   = 128
  }

  health {
    http {
      path = "/health"
      port = "http"
    }
    interval = "500ms"
  }
}

service "web" {
  image       = image.front
  instances   = 4
  connects_to = [service.api]
  drain       = "5s"
  stop_within = "1s"

  port "http" { container = 8080 }

  limits {
    memory = "64MiB"
    pids   = 128
  }

  health {
    http {
      path = "/health"
      port = "http"
    }
    interval = "500ms"
  }

  route { path = "/" }

  # All new instances come up beside the old ones, then all traffic moves at once; the old ones stay warm, so that a
  # rollback is a switch of weights.
  rollout "blue_green" {
    hold     = "1s"
    keep_old = "10m"
  }
}
