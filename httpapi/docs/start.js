// A file and not a script element, so that the page's policy can forbid those.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  validatorUrl: null, // no look-up anywhere else
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
});
