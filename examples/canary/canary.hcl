# A canary: a new release starts with a quarter of the instances and a twentieth of the traffic, and gets more in steps.
#
#   basalt up examples/canary
#   basalt up examples/canary --var greeting=howdy

variable "greeting" { default = "hello" }

image "web" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  file "/www/index.html" { content = "${var.greeting}\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
}

service "web" {
  image       = image.web
  instances   = 4
  drain       = "10s"
  stop_within = "1s"

  port "http" { container = 8080 }

  health {
    http {
      path = "/"
      port = "http"
    }
    interval = "500ms"
  }

  route { path = "/" }

  rollout "canary" {
    instances = "25%"
    steps = [
      { weight = 5, hold = "5s" },
      { weight = 25, hold = "5s" },
      { weight = 50, hold = "5s" },
    ]
    hold     = "2s"
    keep_old = "10m"
    deadline = "5m"
  }
}
